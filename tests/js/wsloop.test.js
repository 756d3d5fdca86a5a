import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { ENDS, EnvelopeSocket, FakeSocket, count, last, nextAttempt, settled } from "./sockets.js";

const HOUR = 3_600_000;
const browser = /** @type {any} */ (globalThis);
/** @type {Clock} */
let clock;
/** @type {import("../../wsloop/static/wsloop/wsloop.js").Message[]} */
let messages;
/** @type {any[]} */
let states;
/** @type {import("../../wsloop/static/wsloop/wsloop.js").Loss[]} */
let losses;
/** @type {any[][]} */
let presences;

/** @param {any} options */
function start(options = {}, url = "ws://site.test/ws/news?subscribe-broadcast") {
  return connect(url, {
    onMessage: (message) => messages.push(message),
    onState: (state) => states.push(state),
    onLost: (loss) => losses.push(loss),
    onPresence: (...told) => presences.push(told),
    WebSocket: /** @type {any} */ (EnvelopeSocket),
    random: () => 0.5,
    ...options,
  });
}

/** A connection that the server has welcomed. @param {any} [options] @param {object} [welcome] */
function ready(options, welcome) {
  const line = start(options);
  last().welcomes(welcome);
  return line;
}

const comesBack = () => nextAttempt(clock, states);

beforeEach(() => {
  FakeSocket.opened = [];
  [messages, states, losses, presences] = [[], [], [], []];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

describe("a line", () => {
  test("says in the console what may be wrong when nothing welcomes it", (context) => {
    const warn = context.mock.method(console, "warn", () => {});
    start();
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      assert.equal(warn.mock.callCount(), attempt > 3 ? 1 : 0);
      last().ends(1006);
      comesBack();
    }
    assert.match(warn.mock.calls[0].arguments[0], /ws:\/\/site\.test\/ws\/news.* use connectConsumer\(\)/);
    assert.doesNotMatch(warn.mock.calls[0].arguments[0], /subscribe-broadcast/, "a query may have a token");
    warn.mock.resetCalls();
    ready();
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      last().ends(1006);
      comesBack();
    }
    assert.equal(warn.mock.callCount(), 0);
  });

  test("names the URL and the subprotocol, and is connected when the server has said welcome", () => {
    start();
    assert.equal(last().url, "ws://site.test/ws/news?subscribe-broadcast");
    assert.deepEqual(last().protocols, ["wsloop.v1"]);
    assert.deepEqual(states, [{ name: "connecting" }]);
    last().welcomes({ subscribed: ["broadcast", "group:chatters"], recovered: true });
    const [, connected] = states;
    assert.deepEqual(connected, { name: "connected", subscribed: ["broadcast", "group:chatters"], recovered: true });
  });

  test("hands messages on, texts as texts and bytes as bytes", () => {
    ready();
    last().says("message", { audience: "broadcast", data: "Grüße" });
    last().says("message", { audience: "broadcast", data: "", kept: true });
    last().says("message", { audience: "group", name: "chatters", base64: "AAEC/w==", own: true, news: 1 });
    assert.deepEqual(messages, [
      { audience: "broadcast", data: "Grüße", own: false, kept: false },
      { audience: "broadcast", data: "", own: false, kept: true },
      { audience: "group", name: "chatters", data: Uint8Array.of(0, 1, 2, 255), own: true, kept: false },
    ]);
  });

  test("does not mind frames that it does not know", () => {
    ready();
    for (const type of ["news", "constructor", "toString", undefined]) last().says(type);
    last().says("ping");
    assert.deepEqual([messages, losses, states.length], [[], [], 2]);
  });

  test("outlives a page that fails", () => {
    ready({
      onMessage() {
        throw new Error("of the page");
      },
    });
    assert.throws(() => last().says("message", { audience: "user", data: "", position: "a.1.x" }), /of the page/);
    clock.tick(59_999);
    assert.equal(states.at(-1).name, "connected");
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "TOKEN~a.1.x");
  });
});

describe("an access token", () => {
  /** @type {(string | null | Error)[]} */
  let tokens;
  const accessToken = async () => {
    const token = tokens.shift();
    if (token instanceof Error) throw token;
    return token;
  };

  beforeEach(() => (tokens = ["FIRST", "SECOND"]));

  test("is asked for before each attempt, and appears in no URL", async () => {
    start({ accessToken });
    assert.equal(count(), 0);
    await settled();
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.FIRST"]);
    last().welcomes();
    last().ends(1006);
    clock.tick(1000);
    await settled();
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.SECOND"]);
    assert.equal(last().url, "ws://site.test/ws/news?subscribe-broadcast&resume=TOKEN");
  });

  test("that has expired is followed by another one", async () => {
    start({ accessToken });
    await settled();
    last().welcomes();
    last().says("goodbye", { code: 4001, reason: "signed out", reconnect: false });
    last().ends(4001);
    assert.equal(states.at(-1).name, "reconnecting");
    clock.tick(1000);
    await settled();
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.SECOND"]);
  });

  test("that cannot be had any more ends the line", async () => {
    tokens = [null];
    start({ accessToken });
    await settled();
    assert.deepEqual(states.at(-1), { name: "offline", reason: "signed out" });
    clock.tick(HOUR);
    assert.equal(count(), 0);
  });

  test("that cannot be had now is asked for again later", async () => {
    tokens.unshift(new Error("no network"));
    start({ accessToken });
    await settled();
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1 });
    clock.tick(1000);
    await settled();
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.FIRST"]);
  });

  test("that comes too late, or when the line is closed, is not used", async () => {
    /** @type {((token: string) => void)[]} */
    const late = [];
    const line = start({ accessToken: () => new Promise((resolve) => late.push(resolve)) });
    await settled();
    clock.tick(12_000);
    clock.tick(1000);
    await settled();
    line.close();
    for (const resolve of late) resolve("LATE");
    await settled();
    assert.deepEqual([late.length, count(), clock.timers.size], [2, 0, 0]);
  });
});

describe("what comes back after a break", () => {
  test("begins at the token of the welcome", () => {
    ready();
    assert.equal(last().resume, null);
    last().ends(1006);
    comesBack();
    assert.equal(last().url, "ws://site.test/ws/news?subscribe-broadcast&resume=TOKEN");
  });

  test("begins at the token of the page at first, until a welcome brings another one", () => {
    start({ token: "eyJw:PAGE" });
    assert.equal(last().resume, "eyJw:PAGE");
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "eyJw:PAGE");
    last().welcomes();
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "TOKEN");
  });

  test("begins at the last position of each channel", () => {
    ready();
    last().says("message", { audience: "broadcast", data: "1", position: "kP3.1.e" });
    last().says("message", { audience: "user", data: "2", position: "Zx9.7.e" });
    last().says("message", { audience: "broadcast", data: "3", position: "kP3.2.e" });
    last().says("position", { position: "Qq1.5.e" });
    last().says("error", { code: "lost", reason: "Lost.", audience: "user", position: "Zx9.9.f" });
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "TOKEN~kP3.2.e~Zx9.9.f~Qq1.5.e");
  });

  test("is handed on once, though it comes again by way of another audience", () => {
    ready();
    last().says("message", { audience: "broadcast", data: "1", position: "kP3.1.e" });
    last().ends(1006);
    comesBack();
    last().welcomes({ recovered: true });
    last().says("message", { audience: "user", data: "1", position: "Zx9.7.e" });
    last().says("message", { audience: "user", data: "2", position: "Zx9.8.f" });
    assert.deepEqual(
      messages.map(({ data }) => data),
      ["1", "2"],
    );
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "TOKEN~Zx9.8.f");
  });

  test("begins at the same place again if the line breaks before the welcome", () => {
    ready();
    last().says("message", { audience: "broadcast", data: "1", position: "kP3.1.e" });
    for (let attempt = 0; attempt < 3; attempt += 1) {
      last().ends(1006);
      comesBack();
      assert.equal(last().resume, "TOKEN~kP3.1.e");
    }
  });

  test("forgets its positions with the next welcome, whose token stands for all", () => {
    ready();
    last().says("message", { audience: "broadcast", data: "1", position: "kP3.1.e" });
    last().ends(1006);
    comesBack();
    last().welcomes({ recovered: true, token: "NEXT" });
    last().says("message", { audience: "user", data: "2", position: "Zx9.7.e" });
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, "NEXT~Zx9.7.e");
  });

  test("is a new beginning where the facility offers no recovery", () => {
    start({ token: "PAGE" });
    last().welcomes({ token: undefined });
    last().ends(1006);
    comesBack();
    assert.equal(last().resume, null);
  });

  test("can be another line, which begins where this one has ended", () => {
    const line = ready();
    last().says("message", { audience: "broadcast", data: "1", position: "kP3.1.e" });
    line.close();
    start({ token: line.token });
    assert.equal(last().resume, "TOKEN~kP3.1.e");
  });

  test("is joined to a URL without parameters, too", () => {
    start({ token: "PAGE" }, "ws://site.test/ws/news");
    assert.equal(last().url, "ws://site.test/ws/news?resume=PAGE");
  });
});

describe("what is lost", () => {
  test("is told when the server cannot say what was missed", () => {
    start({ token: "PAGE" });
    last().welcomes({ recovered: false });
    assert.deepEqual(losses, [{ reason: "Missed messages are lost. Load the state anew." }]);
  });

  for (const recovered of [true, null]) {
    test(`is nothing if recovered is ${recovered}`, () => {
      start({ token: "PAGE" });
      last().welcomes({ recovered });
      assert.deepEqual(losses, []);
    });
  }

  test("is told while the line is open", () => {
    ready();
    last().says("error", { code: "lost", reason: "Lost.", audience: "group", name: "chatters", position: "a.1.x" });
    assert.deepEqual(losses, [{ reason: "Lost.", audience: "group", name: "chatters" }]);
  });

  test("is nothing in other errors", () => {
    ready();
    last().says("error", { code: "frame", reason: "Not understood." });
    assert.deepEqual(losses, []);
  });
});

describe("presence", () => {
  const there = { presence: { users: ["mary", "john"], anonymous: 2 } };

  test("is told when the line is opened, and with each change", () => {
    ready({}, there);
    last().says("presence", { event: "join", user: "ann" });
    last().says("presence", { event: "leave", user: "mary" });
    last().says("presence", { event: "anonymous", count: 3 });
    assert.deepEqual(presences, [
      [{ users: ["john", "mary"], anonymous: 2 }],
      [
        { users: ["ann", "john", "mary"], anonymous: 2 },
        { event: "join", user: "ann" },
      ],
      [
        { users: ["ann", "john"], anonymous: 2 },
        { event: "leave", user: "mary" },
      ],
      [
        { users: ["ann", "john"], anonymous: 3 },
        { event: "anonymous", count: 3 },
      ],
    ]);
  });

  test("is not told where nothing changes", () => {
    ready({}, there);
    last().says("presence", { event: "join", user: "john" });
    last().says("presence", { event: "leave", user: "ann" });
    last().says("presence", { event: "anonymous", count: 2 });
    last().says("presence", { event: "news" });
    assert.equal(presences.length, 1);
  });

  test("begins anew with each welcome", () => {
    ready({}, there);
    last().ends(1012);
    comesBack();
    last().welcomes({ presence: { users: ["ann"], anonymous: 0 } });
    assert.deepEqual(presences.at(-1), [{ users: ["ann"], anonymous: 0 }]);
  });

  test("is not told where it was not asked for", () => {
    ready();
    last().says("presence", { event: "join", user: "john" });
    assert.deepEqual(presences, []);
  });
});

describe("publishing", () => {
  const rejection = (/** @type {string} */ code) => ({ name: "RequestError", code });

  test("is done when the server has acknowledged it", async () => {
    const line = ready();
    const first = line.publish("Grüße");
    const second = line.publish(Uint8Array.of(0, 1, 2, 255));
    assert.deepEqual(last().sent, [
      { type: "publish", data: "Grüße", id: 1 },
      { type: "publish", base64: "AAEC/w==", id: 2 },
    ]);
    let done = false;
    first.then(() => (done = true));
    last().says("ack", { id: 2 });
    await second;
    assert.equal(done, false);
    last().says("ack", { id: 1 });
    assert.equal(await first, undefined);
    assert.equal(clock.timers.size, 1); // that of the line
  });

  for (const code of ["refused", "unavailable", "frame"]) {
    test(`fails with ${code} if the server says so`, async () => {
      const line = ready();
      const published = line.publish("1");
      last().says("error", { code, reason: "Because.", id: 1 });
      await assert.rejects(published, { ...rejection(code), message: "Because." });
    });
  }

  test("does not wait for ever", async () => {
    const line = ready();
    const published = line.publish("1");
    clock.tick(10_000);
    await assert.rejects(published, rejection("unknown"));
    last().says("ack", { id: 1 }); // too late, and harmless
  });

  test("tells that it is not known when the line breaks, is closed or given up meanwhile", async () => {
    /** @type {import("../../wsloop/static/wsloop/wsloop.js").Subscription} */
    let line;
    for (const end of [() => last().ends(1006), () => line.close(), () => clock.tick(60_000)]) {
      line = ready();
      clock.tick(55_000);
      const published = line.publish("1");
      end();
      await assert.rejects(published, rejection("unknown"));
      line.close();
    }
  });

  test("is refused at once while there is no connection", async () => {
    const line = start();
    await assert.rejects(line.publish("too early"), rejection("disconnected"));
    last().welcomes();
    last().says("goodbye", { code: 1012, reason: "restarting", reconnect: true, after: 10 });
    await assert.rejects(line.publish("after the goodbye"), rejection("disconnected"));
    last().ends(1012);
    await assert.rejects(line.publish("broken"), rejection("disconnected"));
    comesBack();
    last().welcomes();
    last().readyState = 2;
    await assert.rejects(line.publish("closing"), rejection("disconnected"));
    assert.deepEqual(
      FakeSocket.opened.flatMap(({ sent }) => sent),
      [],
    );
  });

  test("is for texts and bytes", async () => {
    const line = ready();
    await assert.rejects(line.publish(/** @type {any} */ ({ text: "object" })), {
      name: "TypeError",
      message: /JSON\.stringify/,
    });
    assert.deepEqual(last().sent, []);
  });
});

describe("a line that breaks", () => {
  test("is opened again soon after code 1000, too: nobody has asked for it", () => {
    ready();
    last().ends(1000);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1 });
    comesBack();
  });

  test("is given up when nothing has come for two intervals, without waiting for the browser to notice", () => {
    ready({}, { ping: 5 });
    for (let ping = 0; ping < 20; ping += 1) {
      clock.tick(9999);
      last().says("ping");
    }
    assert.equal(count(), 1);
    const dead = last();
    clock.tick(9999);
    assert.equal(states.at(-1).name, "connected");
    clock.tick(1);
    assert.equal(states.at(-1).name, "reconnecting");
    assert.deepEqual([dead.readyState, dead.onmessage, dead.onclose], [2, null, null]);
    comesBack();
  });

  test("is given up when there is no welcome, whether it was opened or not", () => {
    start();
    clock.tick(11_999);
    assert.equal(states.at(-1).name, "connecting");
    clock.tick(1);
    comesBack();
  });
});

describe("a goodbye", () => {
  const goodbye = { code: 1012, reason: "server restarting", reconnect: true, after: 1730 };

  test("says when to come back", () => {
    ready();
    last().says("goodbye", goodbye);
    assert.equal(states.at(-1).name, "connected");
    last().ends(1012);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1.73, reason: "server restarting" });
    comesBack();
    last().ends(1006);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 2 }); // half of 4 s: the second failure
  });

  test("holds if no close frame follows", () => {
    ready();
    last().says("goodbye", goodbye);
    last().ends(1006);
    assert.equal(states.at(-1).seconds, 1.73);
  });

  test("says whether to come back at all", () => {
    ready();
    last().says("goodbye", { ...goodbye, code: 4999, reason: "closed down", reconnect: false });
    last().ends(4999);
    assert.deepEqual(states.at(-1), { name: "offline", reason: "closed down" });
    clock.tick(HOUR);
    assert.equal(count(), 1);
  });

  test("cannot shorten the pause of who has sent too much", () => {
    ready();
    last().says("goodbye", { code: 4029, reason: "rate", reconnect: true, after: 10 });
    last().ends(4029);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 3, reason: "sent too fast" });
    comesBack();
    last().welcomes();
    last().says("goodbye", { code: 4029, reason: "rate", reconnect: true, after: 60_000 });
    last().ends(4029);
    assert.equal(states.at(-1).seconds, 60);
  });
});

test("a code of the site's own below 4500 does not end it", () => {
  ready();
  last().ends(4499);
  assert.equal(states.at(-1).name, "reconnecting");
});

describe("the end", () => {
  for (const [code, reason] of ENDS) {
    for (const before of [false, true]) {
      test(`comes with code ${code}: ${reason}${before ? ", after a goodbye" : ""}`, () => {
        ready();
        if (before) last().says("goodbye", { code, reason: "in the server's words", reconnect: false });
        last().ends(code);
        const shown = before && reason === "disconnected" ? "in the server's words" : reason;
        assert.deepEqual(states.at(-1), { name: "offline", reason: shown });
        clock.tick(HOUR);
        assert.equal(count(), 1);
      });
    }
  }
});

describe("a server that refuses the socket, and opens it to say so", () => {
  const reason = "Pages of this Origin may not open a WebSocket here; see ALLOWED_ORIGINS, and the log of the site.";

  for (const [before, words, said] of /** @type {[boolean, string, string][]} */ ([
    [true, reason, reason],
    [true, "", reason],
    [false, reason, reason], // without a goodbye
    [false, "", "refused"],
  ])) {
    test(`is not asked again, and the page can show why: ${before}, ${words}`, (context) => {
      const { mock } = context.mock.method(console, "error", () => {});
      start({}, "ws://site.test/ws/news?subscribe-user&token=secret");
      last().onopen();
      if (before) last().says("goodbye", { code: 4030, reason, reconnect: false });
      last().ends(4030, words);
      assert.deepEqual(states.at(-1), { name: "offline", reason: said });
      const lines = mock.calls.map((each) => each.arguments[0]);
      assert.deepEqual(lines, [`wsloop: the server refuses ws://site.test/ws/news: ${said}`], "and no token");
      clock.tick(HOUR);
      assert.equal(count(), 1);
    });
  }

  test("is asked with another token, if the page has more", async () => {
    let number = 0;
    start({ accessToken: () => `${(number += 1)}` });
    await settled();
    last().onopen();
    last().says("goodbye", { code: 4001, reason: "The token is not valid.", reconnect: false });
    last().ends(4001, "The token is not valid.");
    assert.equal(states.at(-1).name, "reconnecting");
    assert.equal(states.at(-1).reason, "The token is not valid.");
    clock.tick(states.at(-1).seconds * 1000);
    await settled();
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.2"]);
  });
});

describe("the network of the machine", () => {
  /** @type {EventTarget} */
  let network;

  beforeEach(() => {
    network = new EventTarget();
    browser.addEventListener = network.addEventListener.bind(network);
  });

  afterEach(() => {
    delete browser.addEventListener;
  });

  test("does not ask for a second token when the page is shown for the first time", async () => {
    let asked = 0;
    const accessToken = () => new Promise(() => (asked += 1));
    const line = start({ accessToken });
    await new Promise((resolve) => setImmediate(resolve));
    network.dispatchEvent(new Event("pageshow"));
    await new Promise((resolve) => setImmediate(resolve));
    line.close();
    assert.equal(asked, 1);
  });

  test("lets go of the line with the page, and goes on where it was when the page is shown again", () => {
    const shown = (/** @type {boolean} */ persisted) => Object.assign(new Event("pageshow"), { persisted });
    ready();
    network.dispatchEvent(shown(false)); // as after each page's first load
    assert.equal(count(), 1);
    last().says("message", { audience: "broadcast", data: "one", position: "abc.1.x" });
    const before = last();
    network.dispatchEvent(new Event("pagehide"));
    assert.equal(before.readyState, 2);
    clock.tick(3_600_000);
    assert.equal(count(), 1);
    network.dispatchEvent(shown(true));
    assert.equal(count(), 2);
    assert.equal(last().resume, "TOKEN~abc.1.x");
  });
});

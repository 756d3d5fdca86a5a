/** Where WebSockets do not work: streams of events and POST, and the way back. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect, open } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { EnvelopeSocket, FakeSocket, PageSocket, last, settled } from "./sockets.js";

/** @type {Clock} */
let clock;
/** @type {Request[]} what was asked for with fetch */
let requests;
/** @type {any[]} what happened */
let events;
const { fetch } = globalThis;
const encoder = new TextEncoder();

/** A request of the client, which the test answers. */
class Request {
  /** @type {any} */
  #controller;
  isAborted = false;

  /** @param {URL} url @param {any} init */
  constructor(url, init) {
    this.url = url.href;
    this.init = init;
    this.method = init.method ?? "GET";
    this.frames = init.body && JSON.parse(init.body);
    /** @type {Promise<Response>} */
    this.response = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    init.signal.addEventListener("abort", () => {
      this.isAborted = true;
      this.reject(new Error("aborted"));
      this.#controller?.error(new Error("aborted"));
    });
  }

  /** The stream begins. */
  async streams() {
    const body = new ReadableStream({ start: (controller) => (this.#controller = controller) });
    this.resolve?.(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
    await quiet();
  }

  /** @param {string} text */
  async sends(text) {
    if (this.isAborted) return;
    for (const byte of encoder.encode(text)) this.#controller.enqueue(Uint8Array.of(byte)); // the smallest pieces
    await quiet();
  }

  /** The server says something. @param {string} type @param {any} [more] */
  says(type, more = {}) {
    return this.sends(`data: ${JSON.stringify({ type, ...more })}\n\n`);
  }

  async ends() {
    this.#controller.close();
    await quiet();
  }

  /** It is answered, and is no stream. @param {number} status @param {any} body @param {object} [headers] */
  async answers(status, body, headers) {
    const isFrame = typeof body === "object";
    const type = { "Content-Type": isFrame ? "application/json" : "text/plain; charset=utf-8" };
    this.resolve?.(new Response(isFrame ? JSON.stringify(body) : body, { status, headers: { ...type, ...headers } }));
    await quiet();
  }

  async fails() {
    this.reject?.(new TypeError("fetch failed"));
    await quiet();
  }

  /** The stream of a page begins, and the server accepts all subscriptions. @param {any} [more] of the welcomes */
  async accepts(more = {}) {
    await this.streams();
    await this.says("welcome", { facility: "", subscribed: [], recovered: null, ping: 30 });
    for (const { id, facility, resume } of this.frames ?? []) {
      const recovered = resume ? true : null;
      await this.says("welcome", { facility, id, subscribed: ["user"], recovered, token: `T-${facility}`, ...more });
    }
  }

  /** @param {string} facility @param {string} data @param {any} [more] */
  message(facility, data, more) {
    return this.says("message", { facility, audience: "user", data, ...more });
  }
}

/** What promises have set off has happened. */
async function quiet() {
  await import("../../wsloop/static/wsloop/event-stream.js"); // the client's own import came before this one
  for (let turn = 0; turn < 12; turn += 1) await settled();
}

const asked = () => /** @type {Request} */ (requests.at(-1));

/** Attempts with a WebSocket fail until a stream is asked for. */
async function blocked() {
  for (let failures = 0; failures < 2; failures += 1) {
    last().ends(1006);
    await quiet();
    clock.tick(5_000);
    await quiet();
  }
}

/** @param {string} name @param {any} [more] */
function options(name, more) {
  return {
    audiences: ["user"],
    publish: ["user"],
    onMessage: (/** @type {any} */ { data, own }) => events.push([name, data, ...(own ? ["own"] : [])]),
    onLost: () => events.push([name, "lost"]),
    ...more,
  };
}

/** @param {any} [more] */
function start(more) {
  return open("ws://site.test/ws/", {
    WebSocket: /** @type {any} */ (PageSocket),
    random: () => 0.5,
    onState: (/** @type {any} */ { name, reason }) => events.push([name, ...(reason ? [reason] : [])]),
    ...more,
  });
}

/** A page with one subscription, over a stream. @param {any} [more] of `open` */
async function streaming(more) {
  const socket = start(more);
  const line = socket.subscribe("a", options("a"));
  await blocked();
  await asked().accepts();
  events = [];
  return { socket, line };
}

beforeEach(() => {
  FakeSocket.opened = [];
  [requests, events] = [[], []];
  clock = new Clock();
  clock.install();
  globalThis.fetch = /** @type {any} */ (
    (/** @type {URL} */ url, /** @type {any} */ init) => {
      requests.push(new Request(url, init));
      return asked().response;
    }
  );
});

afterEach(() => {
  clock.restore();
  globalThis.fetch = fetch;
});

describe("a network that blocks WebSockets", () => {
  test("gets a stream after two attempts, with the positions and all subscriptions", async () => {
    const socket = start();
    socket.subscribe("a", options("a", { token: "PAGE" }));
    socket.subscribe("b/c d", options("b"));
    last().ends(1006);
    await quiet();
    clock.tick(1_000);
    assert.deepEqual([FakeSocket.opened.length, requests.length], [2, 0]);
    last().ends(1006);
    await quiet();
    clock.tick(2_000);
    await quiet();
    const { url, method, frames, init } = asked();
    assert.deepEqual([url, method, init.credentials], ["http://site.test/ws/", "POST", "include"]);
    assert.deepEqual(init.headers, { Accept: "text/event-stream", "Content-Type": "application/json" });
    assert.deepEqual(frames, [
      { type: "subscribe", facility: "a", audiences: ["user"], publish: ["user"], resume: "PAGE", id: 1 },
      { type: "subscribe", facility: "b/c d", audiences: ["user"], publish: ["user"], id: 2 },
    ]);
    await asked().accepts();
    assert.equal(socket.state.name, "connected");
    await asked().message("b/c d", "hello");
    assert.deepEqual(events.at(-1), ["b", "hello"]);
    assert.deepEqual([FakeSocket.opened.length, requests.length], [2, 1]);
  });

  test("gets a stream for the URL of one facility, too", async () => {
    const line = connect("ws://site.test/ws/news?subscribe-user&publish-user", {
      WebSocket: /** @type {any} */ (EnvelopeSocket),
      random: () => 0.5,
      token: "PAGE:1",
      onMessage: ({ data }) => events.push(data),
    });
    await blocked();
    const parameters = "subscribe-user&publish-user&resume=PAGE%3A1&protocol=wsloop.v1";
    assert.deepEqual([asked().url, asked().method], [`http://site.test/ws/news?${parameters}`, "GET"]);
    await asked().streams();
    await asked().says("welcome", { facility: "news", subscribed: ["user"], recovered: true, token: "T", ping: 30 });
    await asked().message("news", "hello", { position: "c.1.x" });
    assert.deepEqual([events, line.state.name, line.token], [["hello"], "connected", "T~c.1.x"]);
    const stream = asked();
    const publishing = line.publish("mine");
    await quiet();
    assert.deepEqual(
      [asked().url, asked().frames],
      ["http://site.test/ws/news?subscribe-user&publish-user", { type: "publish", data: "mine", id: 1 }],
    );
    await asked().answers(200, { type: "ack", id: 1 });
    await publishing;
    await stream.ends();
    clock.tick(2_000);
    await quiet();
    assert.match(asked().url, /resume=T~c\.1\.x&protocol/);
  });

  test("is read whatever else the stream has in it", async () => {
    await streaming();
    const frame = JSON.stringify({ type: "message", facility: "a", audience: "user", data: "ü€😀\n" });
    await asked().sends(`:\n\nid: 7\n\nretry: 1000\ndata: ${frame}\n\n`);
    assert.deepEqual(events, [["a", "ü€😀\n"]]);
  });

  test("gets WebSockets again when a stream does not work either", async () => {
    start();
    await blocked();
    await asked().fails();
    clock.tick(10_000);
    await quiet();
    await asked().answers(404, "no such page");
    clock.tick(15_000);
    await quiet();
    assert.deepEqual([FakeSocket.opened.length, requests.length], [3, 2]);
    last().opens();
    assert.equal(events.at(-1)[0], "connected");
  });

  test("gets no stream if the page does not want it", async () => {
    start({ fallback: false });
    await blocked();
    await blocked();
    assert.deepEqual([FakeSocket.opened.length, requests.length], [4, 0]);
  });

  test("gets no stream if the page has closed its connection meanwhile", async () => {
    const socket = start();
    last().ends(1006);
    clock.tick(1_000);
    last().ends(1006);
    await quiet();
    clock.tick(2_000); // the attempt has begun
    socket.close();
    await quiet();
    assert.deepEqual([FakeSocket.opened.length, requests.length], [2, 0]);
  });

  test("gets a stream without a subscription, and then one with the first", async () => {
    const socket = start();
    await blocked();
    assert.deepEqual([asked().url, asked().method], ["http://site.test/ws/?protocol=wsloop.v1", "GET"]);
    await asked().accepts();
    const line = socket.subscribe("a", options("a"));
    await quiet();
    clock.tick(0);
    await quiet();
    await asked().accepts();
    assert.deepEqual([line.state.name, requests.length], ["connected", 2]);
    clock.tick(1_000);
    assert.deepEqual(requests.map(({ isAborted }) => isAborted), [true, false]);
    line.close();
    await quiet();
    clock.tick(0);
    await quiet();
    assert.deepEqual([requests.length, asked().method], [3, "GET"]);
    await asked().accepts();
    clock.tick(1_000);
    assert.deepEqual(events.filter(([name]) => name === "connected").length, 1);
  });

  test("is not what a WebSocket that breaks now and then is taken for", async () => {
    start();
    for (let breaks = 0; breaks < 5; breaks += 1) {
      last().opens();
      last().ends(1006);
      clock.tick(1_000);
      last().ends(1006);
      await quiet();
      clock.tick(2_000);
    }
    assert.deepEqual([FakeSocket.opened.length, requests.length], [11, 0]);
  });

  test("may be left: when the network is back, a WebSocket is tried first", async () => {
    const browser = new EventTarget();
    globalThis.addEventListener = browser.addEventListener.bind(browser);
    try {
      await streaming();
      await asked().ends();
      browser.dispatchEvent(new Event("online"));
      await quiet();
      assert.deepEqual([FakeSocket.opened.length, requests.length], [3, 1]);
    } finally {
      // @ts-expect-error: Node has none
      delete globalThis.addEventListener;
    }
  });
});

describe("the end of a stream", () => {
  test("is a break, after which the next one goes on where it was", async () => {
    await streaming();
    await asked().message("a", "1", { position: "c.1.x" });
    await asked().ends();
    assert.deepEqual(events.at(-1), ["reconnecting"]);
    clock.tick(2_000);
    await quiet();
    assert.deepEqual([FakeSocket.opened.length, requests.length], [2, 2]);
    assert.equal(asked().frames[0].resume, "T-a~c.1.x");
    await asked().accepts();
    assert.deepEqual(events.at(-1), ["connected"]);
  });

  test("is one that the server has announced", async () => {
    await streaming();
    await asked().says("goodbye", { code: 1012, reason: "server restarting", reconnect: true, after: 700 });
    await asked().ends();
    assert.deepEqual(events.at(-1), ["reconnecting", "server restarting"]);
    clock.tick(699);
    assert.equal(requests.length, 1);
    clock.tick(1);
    await quiet();
    assert.equal(requests.length, 2);
    await asked().accepts();
    await asked().says("goodbye", { code: 4001, reason: "signed out", reconnect: false });
    await asked().ends();
    assert.deepEqual(events.at(-1), ["offline", "signed out"]);
  });

  test("comes when nothing has arrived for too long", async () => {
    await streaming();
    clock.tick(59_000);
    await asked().says("ping");
    clock.tick(59_000);
    assert.deepEqual(events, []);
    clock.tick(2_000);
    assert.deepEqual([events, asked().isAborted], [[["reconnecting"]], true]);
  });

  test("comes with the page's close, whatever is under way", async () => {
    const { socket, line } = await streaming();
    const stream = asked();
    const publishing = assert.rejects(line.publish("x"), { code: "unknown" });
    socket.subscribe("b", options("b"));
    await quiet();
    clock.tick(0);
    await quiet();
    socket.close();
    await publishing;
    await quiet();
    assert.equal(clock.timers.size, 0);
    assert.deepEqual([stream, ...requests].map(({ isAborted }) => isAborted), [true, true, true, true]);
    clock.tick(1_000_000);
    assert.deepEqual([clock.timers.size, requests.length], [0, 3]);
  });

  test("is not an error in a function of the page", async () => {
    const socket = start();
    socket.subscribe("a", options("a", { onMessage: () => assert.fail("of the page") }));
    await blocked();
    await asked().accepts();
    await asked().message("a", "1");
    assert.throws(() => clock.tick(0), /of the page/);
    await asked().says("ping");
    assert.equal(socket.state.name, "connected");
  });
});

describe("a stream that is refused", () => {
  test("is not asked for again when the site does not allow it", async () => {
    start();
    await blocked();
    await asked().answers(403, "Sign in, perhaps.");
    assert.deepEqual(events.at(-1), ["offline", "Sign in, perhaps."]);
  });

  test("is asked for again when a proxy does not allow it", async () => {
    start();
    await blocked();
    await asked().answers(403, "<p>Blocked</p>", { "Content-Type": "text/html" });
    assert.deepEqual(events.at(-1), ["reconnecting"]);
  });

  for (const status of [429, 503]) {
    test(`is asked for again when the server says so: ${status}`, async () => {
      start();
      await blocked();
      await asked().answers(status, "Try again.", { "Retry-After": "20" });
      assert.equal(events.at(-1)[0], "reconnecting");
      clock.tick(29_000);
      assert.equal(requests.length, 1);
      clock.tick(1_000);
      await quiet();
      assert.equal(requests.length, 2);
    });
  }

  test("is asked for with another token", async () => {
    let number = 0;
    start({ accessToken: () => `secret-${(number += 1)}` });
    await quiet();
    await blocked();
    assert.equal(asked().url, "http://site.test/ws/?protocol=wsloop.v1");
    assert.equal(asked().init.headers.Authorization, "Bearer wsloop.token.secret-3");
    await asked().answers(403, "The token is not valid.");
    assert.equal(events.at(-1)[0], "reconnecting");
    clock.tick(5_000);
    await quiet();
    assert.equal(asked().init.headers.Authorization, "Bearer wsloop.token.secret-4");
  });
});

describe("what is posted", () => {
  test("goes to the URL of its facility, one after the other, and is answered", async () => {
    const { socket } = await streaming();
    const line = socket.subscribe("b/c d", options("b", { audiences: ["user", "broadcast"], publish: ["session"] }));
    await quiet();
    clock.tick(0);
    await quiet();
    await asked().accepts();
    const before = requests.length;
    const [published, past, called] = [line.publish("1"), line.history({ limit: 2 }), socket.call("GET", "/x/")];
    await quiet();
    assert.equal(requests.length, before + 1);
    assert.equal(asked().url, "http://site.test/ws/b/c%20d?publish-session");
    assert.deepEqual(asked().frames, { type: "publish", data: "1", facility: "b/c d", id: 3 });
    assert.equal(asked().init.headers.Accept, "application/json");
    await asked().answers(200, { type: "ack", id: 3 });
    await published;
    assert.equal(asked().url, "http://site.test/ws/b/c%20d?subscribe-user&subscribe-broadcast");
    const messages = [{ facility: "b/c d", audience: "user", data: "old" }];
    await asked().answers(200, { type: "history", messages, before: null, id: 4 });
    assert.equal((await past).messages[0].data, "old");
    assert.equal(asked().url, "http://site.test/ws/");
    await asked().answers(200, { type: "answer", status: 201, data: { made: 1 }, id: 5 });
    assert.deepEqual(await called, { status: 201, data: { made: 1 } });
  });

  /** @type {[number, any, string][]} */
  const REFUSED = [
    [403, { type: "error", code: "refused", reason: "No.", id: 2 }, "refused"],
    [403, "A token.", "refused"],
    [413, "Too long.", "frame"],
    [429, "Too many.", "unavailable"],
    [503, "Not now.", "unavailable"],
    [500, "It failed.", "internal"],
    [404, "Where?", "unknown"],
  ];
  for (const [status, body, code] of REFUSED) {
    test(`is refused with ${status} and ${typeof body}`, async () => {
      const { line } = await streaming();
      const publishing = assert.rejects(line.publish("x"), { code });
      await quiet();
      await asked().answers(status, body);
      await publishing;
    });
  }

  test("is unknown when the network fails, and does not hold up what follows", async () => {
    const { line } = await streaming();
    const lost = assert.rejects(line.publish("x"), { code: "unknown" });
    const late = assert.rejects(line.publish("y"), { code: "unknown" });
    await quiet();
    await asked().fails();
    await lost;
    assert.equal(asked().frames.data, "y");
    clock.tick(10_000);
    await late;
    await quiet();
    const third = line.publish("z");
    await quiet();
    assert.equal(asked().frames.data, "z");
    await asked().answers(200, { type: "ack", id: 4 });
    await third;
  });

  test("never leaves the folder of the sockets", async () => {
    const { socket } = await streaming();
    const line = socket.subscribe("../accounts/logout", options("x"));
    await quiet();
    clock.tick(0);
    await quiet();
    await asked().accepts();
    const before = requests.length;
    await assert.rejects(line.publish("x"), { code: "frame" });
    assert.equal(requests.length, before);
  });
});

describe("another subscription", () => {
  /** A page with one subscription that asks for a second one. */
  async function growing() {
    const page = await streaming();
    const first = asked();
    await first.message("a", "1", { position: "c.1.x" });
    const line = page.socket.subscribe("b", options("b"));
    await quiet();
    clock.tick(0);
    await quiet();
    return { ...page, first, second: asked(), other: line };
  }

  test("opens a second stream, with the positions of the first one, which ends later", async () => {
    const { first, second, other } = await growing();
    assert.deepEqual(
      second.frames.map((/** @type {any} */ { facility, resume }) => [facility, resume]),
      [
        ["a", "T-a~c.1.x"],
        ["b", undefined],
      ],
    );
    await first.message("a", "2", { position: "c.2.y" });
    await second.accepts();
    assert.equal(other.state.name, "connected");
    await second.message("b", "at once");
    await second.message("a", "2", { position: "c.2.y" });
    await second.message("a", "4", { position: "c.4.u" });
    await first.message("a", "3", { position: "c.3.z" });
    assert.deepEqual(events, [["a", "1"], ["a", "2"], ["b", "at once"], ["a", "3"]]);
    assert.equal(first.isAborted, false);
    clock.tick(1_000);
    await quiet();
    assert.equal(first.isAborted, true);
    await second.message("b", "at once");
    const all = [["a", "1"], ["a", "2"], ["b", "at once"], ["a", "3"], ["a", "4"], ["b", "at once"]];
    assert.deepEqual(events, all);
    assert.equal(second.isAborted, false);
  });

  test("loses nothing of facilities without positions, and shows nothing twice", async () => {
    const { first, second } = await growing();
    await first.message("a", "before");
    await second.accepts();
    await second.message("a", "old", { kept: true });
    await second.message("a", "same");
    await first.message("a", "same");
    await first.message("a", "same");
    await second.message("a", "same");
    clock.tick(900);
    await first.message("a", "late");
    clock.tick(100);
    await quiet();
    assert.equal(first.isAborted, true);
    await second.message("a", "late");
    await second.message("a", "same");
    await second.message("a", "late");
    const texts = events.map(([, data]) => data);
    assert.deepEqual(texts, ["1", "before", "same", "same", "late", "same", "late"]);
  });

  test("shows nothing twice either when one stream follows another at once", async () => {
    const { socket, first, second } = await growing();
    await second.accepts();
    clock.tick(900);
    await first.message("a", "2");
    socket.subscribe("c", options("c"));
    clock.tick(100);
    await quiet();
    clock.tick(0);
    await quiet();
    const third = asked();
    assert.notEqual(third, second);
    await second.message("a", "2"); // late
    await second.message("a", "3");
    await third.accepts();
    await third.message("a", "2"); // later still
    await third.message("a", "3");
    await third.message("a", "4");
    clock.tick(1_000);
    await quiet();
    assert.deepEqual(events.map(([, data]) => data), ["1", "2", "3", "4"]);
  });

  test("drops nothing that is equal to a message from earlier", async () => {
    const { first, second } = await growing();
    await first.message("a", "tick"); // before the second stream has begun
    clock.tick(1_000);
    await second.accepts();
    await second.message("a", "tick");
    await first.message("a", "tick");
    clock.tick(1_000);
    await quiet();
    await second.message("a", "tick");
    assert.deepEqual(events.map(([, data]) => data), ["1", "tick", "tick", "tick"]);
  });

  test("that is refused affects no other", async () => {
    const { second, other } = await growing();
    await second.streams();
    await second.says("welcome", { facility: "", subscribed: [], recovered: null, ping: 30 });
    await second.says("error", { facility: "b", id: 2, code: "refused", reason: "No." });
    assert.equal(other.state.name, "offline");
    await second.says("welcome", { facility: "a", id: 1, subscribed: ["user"], recovered: true });
    clock.tick(1_000);
    await quiet();
    await second.message("a", "2");
    assert.deepEqual(events.at(-1), ["a", "2"]);
    assert.equal(requests.length, 2); // it is not asked for again
  });

  test("waits for the one before, and all are asked for together", async () => {
    const { socket, second, other } = await growing();
    socket.subscribe("c", options("c"));
    other.close();
    await quiet();
    clock.tick(0);
    await quiet();
    assert.equal(requests.length, 2);
    await second.accepts();
    await second.message("b", "of a subscription that has ended");
    clock.tick(1_000);
    await quiet();
    clock.tick(0);
    await quiet();
    assert.equal(requests.length, 3);
    assert.deepEqual(
      asked().frames.map((/** @type {any} */ { facility }) => facility),
      ["a", "c"],
    );
    await asked().accepts();
    clock.tick(1_000);
    await asked().message("c", "2");
    assert.deepEqual(events, [["a", "1"], ["c", "2"]]);
  });

  test("that begins anew is another one: nothing of the earlier one reaches it", async () => {
    const { socket, line } = await streaming();
    const first = asked();
    line.close();
    const again = socket.subscribe("a", options("again"));
    await first.message("a", "of the earlier one");
    await quiet();
    clock.tick(0);
    await quiet();
    await asked().accepts();
    await first.message("a", "of the earlier one");
    await asked().message("a", "of the new one");
    assert.deepEqual([events, again.state.name], [[["again", "of the new one"]], "connected"]);
  });

  const FAILS = {
    "cannot be opened": async (/** @type {Request} */ second) => second.fails(),
    "does not answer": async () => clock.tick(12_000),
    "cannot recover": async (/** @type {Request} */ second) => second.accepts({ recovered: false }),
    "is not allowed to go on": async (/** @type {Request} */ second) => {
      await second.streams();
      await second.says("error", { facility: "a", id: 1, code: "unavailable", reason: "Not now." });
    },
  };
  for (const [what, happens] of Object.entries(FAILS)) {
    test(`connects anew if the second stream ${what}`, async () => {
      const { first, second } = await growing();
      await happens(second);
      await quiet();
      assert.deepEqual([events.at(-1)[0], first.isAborted, second.isAborted], ["reconnecting", true, true]);
      clock.tick(5_000);
      await quiet();
      assert.deepEqual(
        asked().frames.map((/** @type {any} */ { facility, resume }) => [facility, resume]),
        [
          ["a", "T-a~c.1.x"],
          ["b", undefined],
        ],
      );
    });
  }

  test("goes on if the first stream ends meanwhile", async () => {
    const { first, second } = await growing();
    await second.accepts();
    await first.says("goodbye", { code: 1012, reason: "server restarting", reconnect: true, after: 0 });
    await first.ends();
    await second.message("a", "2");
    assert.deepEqual(events, [["a", "1"], ["a", "2"]]);
  });
});

describe("the way back to a WebSocket", () => {
  const TRIAL = 150_000;

  test("is tried after minutes, and again, while the stream works", async () => {
    await streaming();
    const stream = asked();
    for (let trial = 0; trial < 3; trial += 1) {
      for (let pings = 0; pings < 4; pings += 1) {
        await stream.says("ping");
        clock.tick(TRIAL / 4);
      }
      assert.equal(FakeSocket.opened.length, 3 + trial);
      last().ends(1006);
    }
    await stream.message("a", "still here");
    assert.deepEqual(events, [["a", "still here"]]);
  });

  /** A WebSocket that is tried. @param {any} [more] */
  async function trial(more) {
    const page = await streaming(more);
    const stream = asked();
    await stream.message("a", "1", { position: "c.1.x" });
    for (let pings = 0; pings < 4; pings += 1) {
      await stream.says("ping");
      clock.tick(TRIAL / 4);
    }
    const socket = last();
    assert.equal(socket.readyState, 0);
    return { ...page, stream, socket };
  }

  test("is taken when the WebSocket has all subscriptions, without a loss or a repetition", async () => {
    const { stream, socket, line } = await trial();
    assert.deepEqual([socket.url, socket.protocols], ["ws://site.test/ws/", ["wsloop.v1"]]);
    socket.opens();
    assert.equal(socket.asked("subscribe").resume, "T-a~c.1.x");
    await stream.message("a", "2", { position: "c.2.y" });
    socket.subscribes("a", { recovered: true });
    socket.says("message", { facility: "a", audience: "user", data: "2", position: "c.2.y" });
    socket.says("message", { facility: "a", audience: "user", data: "3", position: "c.3.z" });
    await stream.message("a", "3", { position: "c.3.z" });
    clock.tick(1_000);
    assert.equal(stream.isAborted, true);
    socket.says("message", { facility: "a", audience: "user", data: "4", position: "c.4.u" });
    assert.deepEqual(events, [["a", "1"], ["a", "2"], ["a", "3"], ["a", "4"]]);
    const publishing = line.publish("mine");
    socket.says("ack", { id: socket.asked("publish").id });
    await publishing;
    const posts = requests.length;
    socket.ends(1012);
    clock.tick(10_000);
    await quiet();
    assert.deepEqual([FakeSocket.opened.length, requests.length], [4, posts]);
  });

  test("waits for what was posted", async () => {
    const { stream, socket, line } = await trial();
    const publishing = line.publish("mine");
    await quiet();
    const post = asked();
    socket.opens();
    socket.subscribes("a", { recovered: true });
    clock.tick(5_000);
    assert.equal(stream.isAborted, false);
    await post.answers(200, { type: "ack", id: post.frames.id });
    await publishing;
    clock.tick(1_000);
    assert.equal(stream.isAborted, true);
    assert.equal(socket.asked("publish"), undefined);
  });

  test("is tried in time even if the page often subscribes to more", async () => {
    const { socket } = await streaming();
    for (let number = 0; number < 4; number += 1) {
      const line = socket.subscribe(`b${number}`, options("b"));
      await quiet();
      clock.tick(0);
      await quiet();
      await asked().accepts();
      clock.tick(TRIAL / 4);
      await quiet();
      line.close();
    }
    assert.equal(FakeSocket.opened.length, 3);
  });

  test("is tried again where the browser forbids it", async () => {
    let attempts = 0;
    class Forbidden extends PageSocket {
      /** @param {string} url @param {string[]} protocols */
      constructor(url, protocols) {
        attempts += 1;
        if (attempts > 2) throw new DOMException("Not now.", "SecurityError");
        super(url, protocols);
      }
    }
    await streaming({ WebSocket: Forbidden });
    for (let pings = 0; pings < 8; pings += 1) {
      await asked().says("ping");
      clock.tick(TRIAL / 4);
    }
    assert.deepEqual([attempts, events], [4, []]);
  });

  test("is left when the WebSocket says nothing", async () => {
    const { stream, socket } = await trial();
    socket.readyState = 1;
    socket.onopen();
    clock.tick(12_000);
    assert.equal(socket.readyState, 2);
    await stream.message("a", "2");
    assert.deepEqual(events, [["a", "1"], ["a", "2"]]);
  });

  test("is taken for one facility, with its positions in the URL", async () => {
    connect("ws://site.test/ws/news?subscribe-user", {
      WebSocket: /** @type {any} */ (EnvelopeSocket),
      random: () => 0.5,
      accessToken: () => "secret",
      onMessage: ({ data }) => events.push(data),
    });
    await quiet();
    await blocked();
    const stream = asked();
    assert.equal(stream.init.headers.Authorization, "Bearer wsloop.token.secret");
    await stream.streams();
    await stream.says("welcome", { facility: "news", subscribed: ["user"], recovered: null, token: "T", ping: 3000 });
    await stream.message("news", "1", { position: "c.1.x" });
    clock.tick(TRIAL);
    assert.equal(last().url, "ws://site.test/ws/news?subscribe-user&resume=T~c.1.x");
    assert.deepEqual(last().protocols, ["wsloop.v1", "wsloop.token.secret"]);
    last().welcomes({ facility: "news", recovered: true, token: "T2" });
    clock.tick(1_000);
    last().says("message", { facility: "news", audience: "user", data: "2", position: "c.2.y" });
    assert.deepEqual([events, stream.isAborted], [["1", "2"], true]);
  });

  test("takes over what the page wants meanwhile", async () => {
    const { socket: page, line } = await streaming();
    const stream = asked();
    for (let pings = 0; pings < 4; pings += 1) {
      await stream.says("ping");
      clock.tick(TRIAL / 4);
    }
    last().opens();
    const other = page.subscribe("b", options("b"));
    line.close();
    await quiet();
    clock.tick(0);
    last().subscribes("a", { recovered: true });
    clock.tick(1_000);
    assert.equal(last().asked("unsubscribe").facility, "a");
    last().subscribes("b");
    assert.equal(other.state.name, "connected");
    assert.equal(requests.length, 1);
  });
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connectConsumer } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { COMES_BACK, ENDS, FakeSocket, count, last, nextAttempt } from "./sockets.js";

class ConsumerSocket extends FakeSocket {
  /** The server lets the client in. */
  opens() {
    this.readyState = 1;
    this.onopen();
  }

  /** @param {any} data */
  says(data) {
    this.onmessage({ data });
  }
}

const HOUR = 3_600_000;
const browser = /** @type {any} */ (globalThis);
/** @type {Clock} */
let clock;
/** @type {(string | ArrayBuffer)[]} */
let messages;
/** @type {any[]} */
let states;
let openings = 0;

/** @param {any} options @param {string | (() => string)} url */
function start(options = {}, url = () => "ws://site.test/ws/random/") {
  return connectConsumer(url, {
    onMessage: (data) => messages.push(data),
    onState: (state) => states.push(state),
    onOpen: () => (openings += 1),
    WebSocket: /** @type {any} */ (ConsumerSocket),
    random: () => 0.5,
    ...options,
  });
}

/** An open connection. @param {any} [options] */
function ready(options) {
  const line = start(options);
  last().opens();
  return line;
}

const comesBack = () => nextAttempt(clock, states);

beforeEach(() => {
  FakeSocket.opened = [];
  [messages, states, openings] = [[], [], 0];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

describe("a line", () => {
  test("is connecting, then connected, and tells its state to whoever asks", () => {
    const line = start();
    assert.deepEqual([states, line.state, openings], [[{ name: "connecting" }], { name: "connecting" }, 0]);
    last().opens();
    assert.deepEqual([states.at(-1), line.state, openings], [{ name: "connected" }, { name: "connected" }, 1]);
  });

  for (const [page, url, expected] of [
    ["http://site.test/page/", "/ws/random/", "ws://site.test/ws/random/"],
    ["https://site.test/page/", "/ws/rooms/a/?after=7", "wss://site.test/ws/rooms/a/?after=7"],
    ["https://site.test/", "ws://127.0.0.1:8000/ws/a/b", "ws://127.0.0.1:8000/ws/a/b"],
  ]) {
    test(`on ${page} finds ${url}`, () => {
      browser.location = { href: page };
      try {
        start({}, () => url);
      } finally {
        delete browser.location;
      }
      assert.equal(last().url, expected);
    });
  }

  test("hands on what comes, as it is", () => {
    ready();
    const bytes = Uint8Array.of(0, 255).buffer;
    assert.equal(last().binaryType, "arraybuffer");
    last().says("42");
    last().says("");
    last().says(bytes);
    assert.deepEqual(messages, ["42", "", bytes]);
  });

  test("sends while it is connected, and says when it is not", () => {
    const line = start();
    assert.equal(line.send("too early"), false);
    last().opens();
    assert.equal(line.send("now"), true);
    const [first] = FakeSocket.opened;
    first.readyState = 2;
    assert.equal(line.send("closing"), false);
    first.ends(1006);
    assert.equal(line.send("broken"), false);
    comesBack();
    last().opens();
    assert.equal(line.send("again"), true);
    line.close();
    assert.equal(line.send("too late"), false);
    assert.deepEqual([first.sent, last().sent], [["now"], ["again"]]);
  });

  test("is not begun with an address that is none", () => {
    for (const address of ["ws://", () => "ws://"]) assert.throws(() => start({}, address), /Invalid URL/);
    assert.deepEqual([count(), clock.timers.size], [0, 0]);
  });

  test("offers no subprotocol, which a consumer would have to choose", () => {
    start({}, "ws://site.test/ws/random/");
    assert.deepEqual([last().url, last().protocols], ["ws://site.test/ws/random/", []]);
  });

  test("needs no options", () => {
    browser.WebSocket = ConsumerSocket;
    try {
      connectConsumer("ws://site.test/ws/random/");
      last().opens();
      last().says("42");
    } finally {
      delete browser.WebSocket;
    }
  });

  test("says what is missing where there is no WebSocket", () => {
    assert.throws(() => start({ WebSocket: null }), /Node has one from version 22 on/);
    assert.equal(clock.timers.size, 0);
  });

  test("ends where the browser forbids the address", () => {
    class Forbidden {
      constructor() {
        throw new DOMException("An insecure WebSocket is not allowed here.", "SecurityError");
      }
    }
    start({ WebSocket: Forbidden });
    assert.deepEqual(states.at(-1), { name: "offline", reason: "An insecure WebSocket is not allowed here." });
    assert.equal(clock.timers.size, 0);
  });

  test("opens no socket if it is closed at once, as React's StrictMode does", () => {
    clock.microtasks = [];
    start().close();
    const line = start();
    assert.equal(count(), 0);
    clock.turn();
    assert.equal(count(), 1);
    last().opens();
    assert.equal(line.state.name, "connected");
  });

  test("listens to errors, which end a process of Node otherwise", () => {
    start();
    assert.equal(typeof last().onerror, "function");
    last().onerror(new Error("of the package ws"));
    const first = last();
    clock.tick(12_000);
    assert.equal(typeof first.onerror, "function", "closing one that connects causes another error");
  });

  test("outlives a page that fails", () => {
    ready({
      patience: 5000,
      onMessage() {
        throw new Error("of the page");
      },
    });
    clock.tick(4999);
    assert.throws(() => last().says("42"), /of the page/);
    clock.tick(4999);
    assert.deepEqual(states.at(-1), { name: "connected" });
    clock.tick(1);
    comesBack();
  });
});

describe("a line that breaks", () => {
  test("asks for the URL before each attempt, so that it can say where to go on", () => {
    let seen = 0;
    start({}, () => `ws://site.test/ws/rooms/a/?after=${seen}`);
    last().opens();
    seen = 7;
    last().ends(1006);
    seen = 8;
    comesBack();
    assert.equal(last().url, "ws://site.test/ws/rooms/a/?after=8");
    last().opens();
    assert.equal(openings, 2);
  });

  for (const [code, why] of COMES_BACK) {
    test(`is opened again soon after code ${code}: ${why}`, () => {
      for (const random of [0, 0.5, 1]) {
        ready({ random: () => random });
        last().ends(code);
        assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 2 * random });
        comesBack();
      }
    });
  }

  test("passes on the reason that the server gave, until the next attempt", () => {
    ready();
    last().ends(1012, "server restarting");
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1, reason: "server restarting" });
    comesBack();
    last().ends(1006);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 2 });
  });

  test("is not opened again at once after code 4029, and says why", () => {
    for (const [random, seconds] of [
      [0, 2],
      [1, 4],
    ]) {
      ready({ random: () => random });
      last().ends(4029);
      assert.deepEqual(states.at(-1), { name: "reconnecting", seconds, reason: "sent too fast" });
      comesBack();
    }
  });

  test("is tried less and less often, but at least every 30 s", () => {
    start({ random: () => 1 });
    const waits = [];
    for (let attempt = 0; attempt < 6; attempt += 1) {
      last().ends(1006);
      waits.push(states.at(-1).seconds);
      comesBack();
    }
    assert.deepEqual(waits, [2, 4, 8, 16, 30, 30]);
  });

  test("begins with short waits again when it has worked for a while, not when it was only opened", () => {
    /** @type {number[]} */
    const waits = [];
    const breaks = () => {
      last().ends(1011);
      waits.push(states.at(-1).seconds);
      comesBack();
      last().opens();
    };
    ready();
    breaks();
    clock.tick(9999);
    breaks();
    breaks();
    clock.tick(10_000);
    breaks();
    assert.deepEqual(waits, [1, 2, 4, 1]);
  });

  test("is given up when it is not opened in time", () => {
    start();
    const dead = last();
    clock.tick(11_999);
    assert.deepEqual(states.at(-1), { name: "connecting" });
    clock.tick(1);
    assert.deepEqual([dead.readyState, dead.onopen, dead.onmessage, dead.onclose], [2, null, null, null]);
    comesBack();
  });

  test("is given up when nothing has come for as long as the page has patience, and not before", () => {
    ready({ patience: 5000 });
    for (let message = 0; message < 10; message += 1) {
      clock.tick(4999);
      last().says("42");
    }
    assert.equal(count(), 1);
    clock.tick(5000);
    comesBack();
  });

  test("may be silent for ever where the page has said nothing", () => {
    ready();
    clock.tick(HOUR);
    assert.deepEqual([states.at(-1), count(), clock.timers.size], [{ name: "connected" }, 1, 0]);
  });
});

describe("the end", () => {
  for (const [code, given, reason] of /** @type {[number, string, string][]} */ ([
    [1000, "", "closed by the server"],
    [1000, "the game is over", "the game is over"],
    ...ENDS.map(([code, reason]) => [code, "", reason]),
    [1008, "members only", "members only"],
    [4001, "in the server's words", "signed out"],
  ])) {
    test(`comes with code ${code} and “${given}”: ${reason}`, () => {
      const line = ready();
      last().ends(code, given);
      assert.deepEqual(
        [states.at(-1), line.state],
        [
          { name: "offline", reason },
          { name: "offline", reason },
        ],
      );
      clock.tick(HOUR);
      assert.equal(count(), 1);
    });
  }

  test("comes when the page closes the line, also while it is told something or waits", () => {
    /** @type {import("../../wsloop/static/wsloop/wsloop.js").ConsumerLine} */
    let line;
    const closesWhenItBreaks = (/** @type {{name: string}} */ { name }) => name === "reconnecting" && line.close();
    for (const { happens, ...options } of [
      { happens: () => line.close() },
      { happens: () => last().says("the last one"), onMessage: () => line.close() },
      { happens: () => last().ends(1006), onState: closesWhenItBreaks },
    ]) {
      line = ready({ patience: 5000, ...options });
      const before = count();
      happens();
      clock.tick(HOUR);
      assert.deepEqual([count(), last().readyState > 1, clock.timers.size], [before, true, 0]);
    }
  });
});

describe("the machine", () => {
  /** @type {EventTarget} */
  let events;

  beforeEach(() => {
    events = new EventTarget();
    browser.addEventListener = events.addEventListener.bind(events);
  });

  afterEach(() => {
    delete browser.addEventListener;
  });

  for (const event of ["online", "pageshow"]) {
    test(`ends the wait with ${event}`, () => {
      start();
      last().ends(1006);
      events.dispatchEvent(new Event(event));
      assert.deepEqual([count(), states.at(-1)], [2, { name: "connecting" }]);
      last().opens();
      clock.tick(HOUR);
      assert.equal(count(), 2);
    });

    test(`does not disturb with ${event} a line that works, nor wake one that was closed`, () => {
      const line = ready();
      events.dispatchEvent(new Event(event));
      assert.equal(count(), 1);
      line.close();
      events.dispatchEvent(new Event(event));
      assert.equal(count(), 1);
    });
  }

  test("does not go on with a line that the page closes when it is told so", () => {
    const line = ready({
      onState: (/** @type {{name: string}} */ { name }) => name === "connecting" && count() > 0 && line.close(),
    });
    last().ends(1006);
    events.dispatchEvent(new Event("online"));
    clock.tick(HOUR);
    assert.deepEqual([count(), clock.timers.size], [1, 0]);
  });

  test("takes the page away, and brings it back as it was, with another line", () => {
    ready();
    events.dispatchEvent(new Event("pagehide"));
    assert.equal(last().readyState, 2);
    clock.tick(HOUR);
    assert.equal(count(), 1);
    events.dispatchEvent(new Event("pageshow"));
    last().opens();
    assert.deepEqual([count(), openings, states.at(-1)], [2, 2, { name: "connected" }]);
  });
});

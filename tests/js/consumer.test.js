import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connectConsumer } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { ConsumerSocket, ENDS, FakeSocket, count, last, nextAttempt } from "./sockets.js";

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

  test("passes on the reason that the server gave, until the next attempt", () => {
    ready();
    last().ends(1012, "server restarting");
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1, reason: "server restarting" });
    comesBack();
    last().ends(1006);
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 2 });
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

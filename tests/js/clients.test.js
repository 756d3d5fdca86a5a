/** What all clients share, because they have one core: how they connect, reconnect, and end. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect, connectConsumer, open } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import {
  COMES_BACK,
  ConsumerSocket,
  ENDS,
  EnvelopeSocket,
  FakeSocket,
  PageSocket,
  count,
  last,
  nextAttempt,
} from "./sockets.js";

const HOUR = 3_600_000;
const SILENCE = 60_000; // milliseconds after which each of them takes a connection for dead
const browser = /** @type {any} */ (globalThis);
/** @type {Clock} */
let clock;
/** @type {any[]} */
let states;
/** @type {any[]} */
let messages;

/**
 * `accepts`: the server lets the client in; `says`: it sends a message.
 *
 * @typedef {object} Client
 * @property {(url: string, options: any) => {close: () => void, state: {name: string}}} start
 * @property {() => void} accepts
 * @property {(data: string) => void} says
 * @property {any} Socket
 */

/** @type {Record<string, Client>} */
const CLIENTS = {
  connect: {
    Socket: EnvelopeSocket,
    start: connect,
    accepts: () => last().welcomes(),
    says: (data) => last().says("message", { audience: "user", data }),
  },
  "open and subscribe": {
    Socket: PageSocket,
    start(url, { onState, onMessage, ...options }) {
      const socket = open(url, options);
      const { close } = socket;
      const subscription = socket.subscribe("news", { audiences: ["user"], onState, onMessage });
      return {
        close,
        get state() {
          return subscription.state;
        },
      };
    },
    accepts() {
      last().opens();
      last().subscribes("news");
    },
    says: (data) => last().says("message", { facility: "news", audience: "user", data }),
  },
  connectConsumer: {
    Socket: ConsumerSocket,
    start: (url, { onMessage, ...options }) =>
      connectConsumer(url, {
        patience: SILENCE,
        onMessage: (data) => onMessage({ data }),
        ...options,
      }),
    accepts: () => last().opens(),
    says: (data) => last().says(data),
  },
};

beforeEach(() => {
  FakeSocket.opened = [];
  [states, messages] = [[], []];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

const comesBack = () => nextAttempt(clock, states);
const names = () => states.map(({ name }) => name);

for (const [name, { Socket, start: startClient, accepts, says }] of Object.entries(CLIENTS)) {
  /** @param {any} [options] */
  const start = (options = {}, url = "ws://site.test/ws/news") =>
    startClient(url, {
      onState: (/** @type {any} */ state) => states.push(state),
      onMessage: (/** @type {any} */ { data }) => messages.push(data),
      WebSocket: Socket,
      random: () => 0.5,
      ...options,
    });

  /** A connection that the server has let in. @param {any} [options] */
  const ready = (options) => {
    const line = start(options);
    accepts();
    return line;
  };

  describe(`a line of ${name}`, () => {
    test("is connecting, then connected, and tells its state to whoever asks", () => {
      const line = start();
      assert.deepEqual([states, line.state], [[{ name: "connecting" }], { name: "connecting" }]);
      accepts();
      assert.deepEqual([names(), line.state], [["connecting", "connected"], states[1]]);
      says("1");
      assert.deepEqual(messages, ["1"]);
    });

    for (const [page, url, expected] of [
      ["http://site.test/page/", "/ws/news?subscribe-user", "ws://site.test/ws/news?subscribe-user"],
      ["https://site.test/page/", "/ws/news?a&echo", "wss://site.test/ws/news?a&echo"],
      ["https://site.test/", "ws://127.0.0.1:8000/ws/a/b", "ws://127.0.0.1:8000/ws/a/b"],
    ]) {
      test(`on ${page} finds ${url}`, () => {
        browser.location = { href: page };
        try {
          start({}, url);
        } finally {
          delete browser.location;
        }
        assert.equal(last().url, expected);
      });
    }

    test("is not begun with an address that is none", () => {
      assert.throws(() => start({}, "ws://"), /Invalid URL/);
      assert.deepEqual([count(), clock.timers.size], [0, 0]);
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
      const line = start({ WebSocket: Forbidden });
      const over = { name: "offline", reason: "An insecure WebSocket is not allowed here." };
      assert.deepEqual([states.at(-1), line.state, clock.timers.size], [over, over, 0]);
    });

    test("opens no socket if it is closed at once, as React's StrictMode does", () => {
      clock.microtasks = [];
      start().close();
      const line = start();
      assert.equal(count(), 0);
      clock.turn();
      assert.equal(count(), 1);
      accepts();
      assert.equal(line.state.name, "connected");
    });

    test("listens to errors, which end a process of Node otherwise", () => {
      start();
      const first = last();
      first.onerror(new Error("of the package ws"));
      clock.tick(12_000);
      assert.equal(typeof first.onerror, "function", "closing one that connects causes another error");
    });

    test("outlives a page that fails", () => {
      ready({
        onMessage() {
          throw new Error("of the page");
        },
      });
      clock.tick(SILENCE - 1);
      assert.throws(() => says("1"), /of the page/);
      clock.tick(SILENCE - 1);
      assert.equal(states.at(-1).name, "connected");
      clock.tick(1);
      comesBack();
    });
  });

  describe(`a line of ${name} that breaks`, () => {
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

    test("is opened again after the time it names, not before", () => {
      ready();
      last().ends(1012);
      clock.tick(999);
      assert.equal(count(), 1);
      clock.tick(1);
      assert.equal(count(), 2);
    });

    test("is not opened again at once after code 4029, and says why until the next attempt", () => {
      for (const [random, seconds] of [
        [0, 2],
        [1, 4],
      ]) {
        const line = ready({ random: () => random });
        last().ends(4029);
        assert.deepEqual(states.at(-1), { name: "reconnecting", seconds, reason: "sent too fast" });
        comesBack();
        last().ends(1006);
        assert.equal("reason" in states.at(-1), false);
        line.close();
      }
    });

    // What the browser tells of HTTP 429 and 503 before the 101, and of any other failed connect.
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

    test("begins with short waits again after it has worked", () => {
      start();
      for (let failure = 0; failure < 4; failure += 1) {
        last().ends(1006);
        comesBack();
      }
      accepts();
      clock.tick(10_000);
      last().ends(1006);
      assert.equal(states.at(-1).seconds, 1);
    });

    test("is given up when it is not opened in time", () => {
      start();
      const dead = last();
      clock.tick(11_999);
      assert.deepEqual(names(), ["connecting"]);
      clock.tick(1);
      assert.deepEqual([dead.readyState, dead.onopen, dead.onmessage, dead.onclose], [2, null, null, null]);
      comesBack();
    });

    test("is given up when nothing has come for too long, and not before", () => {
      ready();
      for (let message = 0; message < 10; message += 1) {
        clock.tick(SILENCE - 1);
        says("1");
      }
      assert.equal(count(), 1);
      const dead = last();
      clock.tick(SILENCE);
      assert.deepEqual([dead.readyState, dead.onmessage, dead.onclose], [2, null, null]);
      comesBack();
    });
  });

  describe(`the end of a line of ${name}`, () => {
    for (const [code, reason] of ENDS) {
      test(`comes with code ${code}: ${reason}`, () => {
        const line = ready();
        last().ends(code);
        const over = { name: "offline", reason };
        assert.deepEqual([states.at(-1), line.state], [over, over]);
        clock.tick(HOUR);
        assert.deepEqual([count(), clock.timers.size], [1, 0]);
      });
    }

    test("comes when the page closes it, also while it is told something or waits", () => {
      /** @type {{close: () => void}} */
      let line;
      const closesWhenItBreaks = (/** @type {{name: string}} */ state) => state.name === "reconnecting" && line.close();
      for (const { happens, ...options } of [
        { happens: () => line.close() },
        { happens: () => says("the last one"), onMessage: () => line.close() },
        { happens: () => last().ends(1006), onState: closesWhenItBreaks },
        {
          happens() {
            last().ends(1006);
            line.close();
          },
        },
      ]) {
        line = ready(options);
        const before = count();
        happens();
        clock.tick(HOUR);
        assert.deepEqual([count(), last().readyState > 1, clock.timers.size], [before, true, 0]);
      }
    });
  });

  describe(`the machine of ${name}`, () => {
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
        accepts();
        clock.tick(1000);
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
      let isBroken = false;
      /** @param {{name: string}} state */
      const onState = ({ name }) => isBroken && name === "connecting" && line.close();
      const line = ready({ onState });
      last().ends(1006);
      isBroken = true;
      events.dispatchEvent(new Event("online"));
      clock.tick(HOUR);
      assert.deepEqual([count(), clock.timers.size], [1, 0]);
    });

    test("takes the page away, and brings it back as it was, with another line", () => {
      const line = ready();
      events.dispatchEvent(new Event("pagehide"));
      assert.equal(last().readyState, 2);
      clock.tick(HOUR);
      assert.equal(count(), 1);
      events.dispatchEvent(new Event("pageshow"));
      accepts();
      assert.deepEqual([count(), line.state.name], [2, "connected"]);
    });
  });
}

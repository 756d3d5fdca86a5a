import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, test } from "node:test";
import { runInThisContext } from "node:vm";

import { CLOSE_CODES } from "../../wsloop/static/wsloop/close-codes.js";
import { connectConsumer } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { COMES_BACK, ENDS, FakeSocket, count, last } from "./sockets.js";

const HOUR = 3_600_000;
const SCRIPT = readFileSync(new URL("../../wsloop/static/js/ws4redis.js", import.meta.url), "utf8");
const URI = "ws://site.test/ws/foobar?subscribe-broadcast&publish-broadcast&echo";
const HEARTBEAT = "--heartbeat--";

const browser = /** @type {any} */ (globalThis);
const before = Object.getOwnPropertyNames(globalThis);
runInThisContext(SCRIPT);
const added = Object.getOwnPropertyNames(globalThis).filter((name) => !before.includes(name));
const real = { random: Math.random, warn: console.warn, error: console.error, CloseEvent: browser.CloseEvent };
/** @type {Clock} */
let clock;
/** @type {any[][]} the callbacks that were called, with what they were given; of an event its code */
let calls;
/** @type {string[]} */
let warnings;

/** As the browser has it: nothing is sent before it is open or afterwards, and what is closed stays closed. */
class Socket extends FakeSocket {
  opens() {
    this.readyState = 1;
    this.onopen();
  }

  /** @param {any} data */
  says(data) {
    this.onmessage({ data });
  }

  /** @override @param {any} data */
  send(data) {
    if (this.readyState === 0) throw new DOMException("connecting", "InvalidStateError");
    if (this.readyState === 1) super.send(data);
  }

  /** @override */
  close() {
    if (this.readyState < 2) super.close();
  }
}

/** @param {object} [more] */
function options(more = {}) {
  return {
    uri: URI,
    heartbeat_msg: HEARTBEAT,
    connecting: (/** @type {any[]} */ ...given) => calls.push(["connecting", ...given]),
    connected: (/** @type {any[]} */ ...given) => calls.push(["connected", ...given]),
    receive_message: (/** @type {any} */ data) => calls.push(["receive_message", data]),
    disconnected: (/** @type {CloseEvent} */ { code }) => calls.push(["disconnected", code]),
    ...more,
  };
}

/** @param {object} [more] */
function ready(more) {
  const client = browser.WS4Redis(options(more));
  last().opens();
  return client;
}

/** @param {any} client */
const state = (client) => ["connecting", "connected", "closing", "closed"].filter((name) => client[`is_${name}`]());

/** @returns {number} milliseconds until the only timer is due */
function pause() {
  assert.equal(clock.timers.size, 1);
  return [...clock.timers.values()][0].due - clock.now;
}

/** @param {string} name */
const told = (name) => calls.filter(([called]) => called === name).length;

beforeEach(() => {
  FakeSocket.opened = [];
  [calls, warnings] = [[], []];
  clock = new Clock();
  clock.install();
  browser.WebSocket = Socket;
  browser.CloseEvent = class extends Event {
    /** @param {string} type @param {{code: number}} init */
    constructor(type, { code }) {
      super(type);
      this.code = code;
    }
  };
  Math.random = () => 0.5;
  console.warn = console.error = (text) => warnings.push(text);
});

afterEach(() => {
  clock.restore();
  delete browser.WebSocket;
  Math.random = real.random;
  Object.assign(console, { warn: real.warn, error: real.error });
  browser.CloseEvent = real.CloseEvent;
});

describe("the interface of ws4redis", () => {
  test("leaves one name in the page, and may be loaded twice", () => {
    assert.deepEqual(added, ["WS4Redis"]);
    runInThisContext(SCRIPT);
  });

  for (const [way, call] of /** @type {[string, () => any][]} */ ([
    ["WS4Redis(…)", () => browser.WS4Redis(options())],
    ["new WS4Redis(…)", () => new browser.WS4Redis(options())],
    ["WS4Redis(…, jQuery)", () => browser.WS4Redis(options(), () => assert.fail("jQuery is not needed"))],
    ["window.WS4Redis(…)", () => browser.WS4Redis.call(globalThis, options())],
  ])) {
    test(`is used as ${way}`, () => {
      const client = call();
      assert.deepEqual([count(), last().url, last().protocols], [1, URI, undefined]);
      last().opens();
      client.send_message("hello");
      assert.deepEqual(last().sent, ["hello"]);
      client.close();
      assert.deepEqual([last().readyState, browser.send_message], [2, undefined]);
    });
  }

  for (const wrong of [undefined, null, {}, { uri: undefined }, { uri: "" }]) {
    test(`names what is missing in ${JSON.stringify(wrong)}`, () => {
      assert.throws(() => browser.WS4Redis(wrong), /^Error: No Websocket URI in options$/);
      assert.equal(clock.timers.size, 0);
    });
  }

  test("tells the callbacks what happens, as ws4redis does", () => {
    const client = browser.WS4Redis(options());
    assert.deepEqual([calls, state(client), client.get_state()], [[["connecting", undefined]], ["connecting"], 0]);
    last().opens();
    assert.deepEqual([state(client), client.get_state()], [["connected"], 1]);
    last().says("one");
    last().says("");
    client.close();
    assert.deepEqual([state(client), client.get_state()], [["closing"], 2]);
    last().ends(1005);
    assert.deepEqual([state(client), client.get_state()], [["closed"], 3]);
    assert.deepEqual(calls, [
      ["connecting", undefined],
      ["connected", undefined],
      ["receive_message", "one"],
      ["receive_message", ""],
      ["disconnected", 1005],
    ]);
    assert.deepEqual([clock.timers.size, warnings], [0, []]);
  });

  test("calls the callbacks as methods of the options", () => {
    let seen;
    ready({
      connected() {
        seen = /** @type {any} */ (this).uri;
      },
    });
    assert.equal(seen, URI);
  });

  test("keeps to the options as they were", () => {
    const given = options();
    browser.WS4Redis(given);
    Object.assign(given, { uri: "ws://other.test/", receive_message: null });
    last().opens();
    last().says("hello");
    last().ends(1006);
    clock.tick(1000);
    assert.deepEqual([last().url, told("receive_message")], [URI, 1]);
  });

  for (const nothing of [undefined, null, "no function"]) {
    test(`does without callbacks: ${nothing}`, () => {
      const callbacks = ["connecting", "connected", "receive_message", "disconnected", "heartbeat_msg"];
      const none = Object.fromEntries(callbacks.map((name) => [name, nothing]));
      ready({ ...none });
      last().says("hello");
      last().ends(1006);
      clock.tick(1000);
      assert.equal(count(), 2);
    });
  }

  test("sends nothing too early, and discards what is sent without a connection", () => {
    clock.microtasks = [];
    const client = browser.WS4Redis(options());
    assert.throws(() => client.send_message("too early"), { name: "InvalidStateError" });
    clock.turn();
    assert.throws(() => client.send_message("too early"), { name: "InvalidStateError" });
    last().opens();
    last().ends(1006);
    client.send_message("lost");
    assert.deepEqual(last().sent, []);
  });
});

describe("the heartbeat", () => {
  test("goes to the server every 5 s, and none of the server's to the page", () => {
    ready();
    for (let beats = 1; beats <= 100; beats += 1) {
      clock.tick(5000);
      last().says(HEARTBEAT);
      assert.equal(last().sent.length, beats);
    }
    assert.deepEqual([new Set(last().sent), told("receive_message"), count()], [new Set([HEARTBEAT]), 0, 1]);
  });

  for (const none of [null, undefined, ""]) {
    test(`is a message like others without heartbeat_msg: ${JSON.stringify(none)}`, () => {
      ready({ heartbeat_msg: none });
      last().says(HEARTBEAT);
      assert.deepEqual(calls.at(-1), ["receive_message", HEARTBEAT]);
      clock.tick(HOUR);
      assert.deepEqual([last().sent, last().readyState, clock.timers.size], [[], 1, 0]);
    });
  }

  test("that is missing for 20 s ends the connection at once, and another one is opened", () => {
    const client = ready();
    clock.tick(19_999);
    assert.deepEqual([last().readyState, last().sent.length], [1, 3]);
    clock.tick(1);
    assert.deepEqual([last().readyState, last().onclose, calls.at(-1)], [2, null, ["disconnected", 1006]]);
    assert.match(warnings[0], /no heartbeat/);
    clock.tick(1000); // the dead socket is still closing
    assert.equal(count(), 2);
    last().opens();
    assert.deepEqual([state(client), told("connected"), told("disconnected")], [["connected"], 2, 1]);
  });

  test("may be late while messages come: a large one is in its way", () => {
    ready();
    for (let seconds = 0; seconds < 60; seconds += 15) {
      clock.tick(15_000);
      last().says("a piece");
    }
    assert.equal(count(), 1);
  });

  test("is counted anew in each connection", () => {
    ready();
    clock.tick(15_000); // three were missed
    last().ends(1006);
    clock.tick(1000);
    last().opens();
    clock.tick(19_999);
    assert.deepEqual([count(), last().readyState, last().sent.length], [2, 1, 3]);
  });

  test("is not sent while there is no connection", () => {
    ready();
    last().ends(1006);
    clock.tick(1000);
    clock.tick(11_999); // the attempt takes long
    assert.deepEqual([count(), last().readyState, last().sent], [2, 0, []]);
  });
});

describe("after a close", () => {
  for (const [code, meaning] of COMES_BACK) {
    test(`with ${code} it reconnects: ${meaning}`, () => {
      const client = ready();
      last().ends(code);
      assert.deepEqual([calls.at(-1), state(client)], [["disconnected", code], ["closed"]]);
      clock.tick(999);
      assert.equal(count(), 1);
      clock.tick(1);
      assert.deepEqual([count(), last().url, calls.at(-1)], [2, URI, ["connecting", undefined]]);
      last().opens();
      last().says("again");
      assert.deepEqual(calls.at(-1), ["receive_message", "again"]);
    });
  }

  for (const [code, meaning] of ENDS) {
    test(`with ${code} it does not reconnect: ${meaning}`, () => {
      const client = ready();
      last().ends(code);
      clock.tick(HOUR);
      assert.deepEqual([count(), calls.at(-1), state(client)], [1, ["disconnected", code], ["closed"]]);
      assert.equal(clock.timers.size, 0);
    });
  }

  for (const [code, { reconnect }] of Object.entries(CLOSE_CODES)) {
    test(`with ${code} it does what wsloop.js does: ${reconnect}`, () => {
      ready();
      last().ends(Number(code));
      const expected = { soon: 1000, later: 3000, never: null }[reconnect];
      assert.equal(expected === null ? null : pause(), expected);
      assert.equal(clock.timers.size, expected === null ? 0 : 1);
    });
  }

  test("its delays are those of wsloop.js, up to 30 s", () => {
    /** @type {any[]} */
    const states = [];
    const onState = (/** @type {any} */ next) => states.push(next);
    const fails = { WebSocket: /** @type {any} */ (Socket), random: () => 0.5, onState };
    connectConsumer("ws://site.test/ws/random/", fails);
    const delays = [];
    for (let attempts = 0; attempts < 8; attempts += 1) {
      last().ends(1006);
      delays.push(states.at(-1).seconds);
      clock.tick(delays[attempts] * 1000);
    }
    clock.timers.clear();

    browser.WS4Redis(options());
    for (const delay of delays) {
      last().ends(1006);
      assert.equal(pause(), delay * 1000);
      clock.tick(delay * 1000);
    }
    assert.deepEqual([delays[0], Math.max(...delays)], [1, 15]); // half of 2 s and of 30 s
  });

  test("it is random", () => {
    for (const random of [0, 0.25, 0.999]) {
      Math.random = () => random;
      ready();
      last().ends(1012);
      assert.equal(pause(), random * 2000);
      clock.timers.clear();
    }
  });

  test("its delays grow while a server lets it in and then fails, and not after 10 s of connection", () => {
    ready({ heartbeat_msg: null });
    for (const delay of [1000, 2000, 4000]) {
      last().ends(1011);
      assert.equal(pause(), delay);
      clock.tick(delay);
      last().opens();
    }
    clock.tick(9999);
    last().ends(1011);
    assert.equal(pause(), 8000);
    clock.tick(8000);
    last().opens();
    clock.tick(10_000);
    last().ends(1011);
    assert.equal(pause(), 1000);
  });

  test("it reconnects although the page's function fails", () => {
    const fails = () => {
      throw new Error("of the page");
    };
    ready({ disconnected: fails });
    assert.throws(() => last().ends(1006), /of the page/);
    clock.tick(1000);
    assert.equal(count(), 2);
  });
});

describe("an attempt", () => {
  test("that takes 12 s has failed", () => {
    browser.WS4Redis(options());
    clock.tick(11_999);
    assert.equal(last().readyState, 0);
    clock.tick(1);
    assert.deepEqual([last().readyState, calls.at(-1)], [2, ["disconnected", 1006]]);
    clock.tick(1000);
    assert.equal(count(), 2);
  });

  test("to an address that the browser forbids is the last one, and the console says why", () => {
    browser.WebSocket = class {
      constructor() {
        throw new DOMException("An insecure WebSocket is not allowed here.", "SecurityError");
      }
    };
    clock.microtasks = [];
    const client = browser.WS4Redis(options());
    clock.turn();
    client.send_message("nowhere");
    client.close();
    assert.deepEqual(calls, [["connecting", undefined], ["disconnected", 1006]]);
    assert.deepEqual([state(client), clock.timers.size], [["closed"], 0]);
    assert.deepEqual(warnings, ["WS4Redis cannot connect to this uri: An insecure WebSocket is not allowed here."]);
  });

  test("is made although the page's function fails", () => {
    const fails = () => {
      throw new Error("of the page");
    };
    assert.throws(() => browser.WS4Redis(options({ connecting: fails })), /of the page/);
    assert.equal(count(), 1);
  });
});

describe("close()", () => {
  test("at once opens no socket, and the page is told", () => {
    clock.microtasks = [];
    const client = browser.WS4Redis(options());
    client.close();
    assert.deepEqual([state(client), calls.length], [["closed"], 1]);
    client.send_message("too late");
    clock.turn();
    assert.deepEqual([count(), calls.at(-1), clock.timers.size], [0, ["disconnected", 1006], 0]);
  });

  for (const moment of ["while it connects", "while it is connected", "while it waits"]) {
    test(`${moment} is final`, () => {
      const client = browser.WS4Redis(options());
      if (moment !== "while it connects") last().opens();
      if (moment === "while it waits") last().ends(1006);
      else assert.equal(clock.timers.size, 1);
      client.close();
      client.close();
      assert.ok(last().readyState >= 2);
      if (moment !== "while it waits") last().ends(1006);
      clock.tick(HOUR);
      assert.deepEqual([count(), told("disconnected"), clock.timers.size, state(client)], [1, 1, 0, ["closed"]]);
    });
  }

  test("in disconnected is final", () => {
    /** @type {any} */
    const client = ready({ disconnected: () => client.close() });
    last().ends(1006);
    clock.tick(HOUR);
    assert.deepEqual([count(), clock.timers.size], [1, 0]);
  });

  test("in connecting is final", () => {
    /** @type {any} */
    let client = null;
    client = ready({ connecting: () => client?.close() });
    clock.microtasks = null;
    last().ends(1006);
    clock.microtasks = [];
    clock.tick(1000);
    clock.turn();
    clock.tick(HOUR);
    assert.deepEqual([count(), told("disconnected"), clock.timers.size], [1, 2, 0]);
  });
});

describe("a page", () => {
  /** @type {EventTarget} */
  let events;

  beforeEach(() => {
    events = new EventTarget();
    browser.addEventListener = events.addEventListener.bind(events);
  });

  afterEach(() => {
    delete browser.addEventListener;
  });

  const restored = () => Object.assign(new Event("pageshow"), { persisted: true });

  for (const [name, event] of /** @type {[string, () => Event][]} */ ([
    ["online", () => new Event("online")],
    ["restored", restored],
  ])) {
    test(`that is ${name} need not wait`, () => {
      ready();
      last().ends(1006);
      events.dispatchEvent(event());
      events.dispatchEvent(new Event("online"));
      assert.equal(count(), 2);
      last().opens();
      clock.tick(15_000);
      assert.equal(count(), 2);
    });

    test(`that is ${name} opens no connection after close()`, () => {
      const client = ready();
      last().ends(1006);
      client.close();
      events.dispatchEvent(event());
      clock.tick(HOUR);
      assert.deepEqual([count(), told("disconnected")], [1, 1]);
    });
  }

  for (const name of ["online", "pageshow"]) {
    test(`keeps a connection that works when ${name} comes`, () => {
      browser.WS4Redis(options());
      events.dispatchEvent(new Event(name));
      last().opens();
      events.dispatchEvent(new Event(name));
      assert.deepEqual([count(), last().readyState, told("disconnected")], [1, 1, 0]);
    });
  }

  test("that the browser has kept gets a new connection at once: the old one is dead", () => {
    ready();
    events.dispatchEvent(restored());
    assert.deepEqual([FakeSocket.opened[0].onclose, count()], [null, 2]);
    last().opens();
    assert.deepEqual(
      calls.slice(2).map(([name]) => name),
      ["disconnected", "connecting", "connected"],
    );
  });

  test("that closes the connection when it is restored gets no other", () => {
    /** @type {any} */
    const client = ready({ disconnected: () => client.close() });
    events.dispatchEvent(restored());
    clock.tick(HOUR);
    assert.deepEqual([count(), clock.timers.size], [1, 0]);
  });
});

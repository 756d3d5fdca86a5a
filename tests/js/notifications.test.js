import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect } from "../../static/js/notifications.js";

/** Stands for the browser's WebSocket; the test says what the server does. */
class FakeSocket {
  static opened = [];

  constructor(url) {
    this.url = url;
    this.closed = false;
    FakeSocket.opened.push(this);
  }

  close() {
    this.closed = true;
  }
}

/** Time that passes when the test says so. (Node's own mock timers changed their signature between versions.) */
class Clock {
  now = 0;
  timers = new Map();
  real = { setTimeout, clearTimeout };

  install() {
    globalThis.setTimeout = (call, delay) => {
      const timer = Symbol("timer");
      this.timers.set(timer, { call, due: this.now + delay });
      return timer;
    };
    globalThis.clearTimeout = (timer) => this.timers.delete(timer);
  }

  restore() {
    Object.assign(globalThis, this.real);
  }

  tick(milliseconds) {
    const end = this.now + milliseconds;
    for (;;) {
      const [timer, next] = [...this.timers].sort(([, a], [, b]) => a.due - b.due)[0] ?? [];
      if (!next || next.due > end) break;
      this.timers.delete(timer);
      this.now = next.due;
      next.call();
    }
    this.now = end;
  }
}

const last = () => FakeSocket.opened.at(-1);
const count = () => FakeSocket.opened.length;
const HEARTBEAT = "--heartbeat--";
let clock;
let messages;
let states;

function start(options = {}) {
  return connect("ws://site.test/ws/news?subscribe-broadcast", {
    onMessage: (data) => messages.push(data),
    onState: (state) => states.push(state),
    heartbeat: HEARTBEAT,
    WebSocket: FakeSocket,
    random: () => 0.5,
    ...options,
  });
}

beforeEach(() => {
  FakeSocket.opened = [];
  messages = [];
  states = [];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

describe("a line that works", () => {
  test("is opened at the URL and says so", () => {
    start();
    assert.equal(last().url, "ws://site.test/ws/news?subscribe-broadcast");
    last().onopen({});
    assert.deepEqual(states, [{ name: "connecting" }, { name: "connected" }]);
  });

  test("hands messages on, and keeps heartbeats to itself", () => {
    start();
    last().onopen({});
    for (const data of ["first", HEARTBEAT, "second"]) last().onmessage({ data });
    assert.deepEqual(messages, ["first", "second"]);
  });

  test("stays open as long as heartbeats arrive", () => {
    start();
    last().onopen({});
    for (let beat = 0; beat < 20; beat += 1) {
      clock.tick(4000);
      last().onmessage({ data: HEARTBEAT });
    }
    assert.equal(count(), 1);
  });

  test("may be silent if the server sends no heartbeat", () => {
    start({ heartbeat: null });
    last().onopen({});
    clock.tick(3_600_000);
    assert.equal(count(), 1);
    assert.equal(last().closed, false);
  });
});

describe("a line that breaks", () => {
  test("is opened again after the time it names", () => {
    start();
    last().onopen({});
    last().onclose({ code: 1012 });
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 1 });
    clock.tick(999);
    assert.equal(count(), 1);
    clock.tick(1);
    assert.equal(count(), 2);
  });

  for (const [code, why] of [
    [1011, "the server failed"],
    [1012, "the server restarts"],
    [1013, "the server has too much to do"],
    [4003, "other channels are allowed now"],
    [4008, "too slow, or silent"],
  ]) {
    test(`is opened again soon after code ${code}: ${why}`, () => {
      for (const random of [0, 0.5, 1]) {
        start({ random: () => random });
        last().onopen({});
        last().onclose({ code });
        assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 2 * random });
        const before = count();
        clock.tick(2000 * random);
        assert.equal(count(), before + 1);
      }
    });
  }

  test("is not opened again at once after code 4029, and says why", () => {
    for (const [random, seconds] of [
      [0, 2],
      [1, 4],
    ]) {
      start({ random: () => random });
      last().onopen({});
      last().onclose({ code: 4029 });
      assert.deepEqual(states.at(-1), { name: "reconnecting", seconds, reason: "sent too fast" });
      const before = count();
      clock.tick(seconds * 1000 - 1);
      assert.equal(count(), before);
      clock.tick(1);
      assert.equal(count(), before + 1);
    }
  });

  test("forgets the reason with the next attempt", () => {
    start();
    last().onclose({ code: 4029 });
    clock.tick(3000);
    last().onclose({ code: 1006 });
    assert.equal("reason" in states.at(-1), false);
  });

  // What the browser tells of HTTP 429 and 503 before the 101, and of any other failed connect.
  test("is tried less and less often, but at least every 30 s", () => {
    start({ random: () => 1 });
    const waits = [];
    for (let attempt = 0; attempt < 6; attempt += 1) {
      last().onclose({ code: 1006 });
      waits.push(states.at(-1).seconds);
      clock.tick(states.at(-1).seconds * 1000);
    }
    assert.deepEqual(waits, [2, 4, 8, 16, 30, 30]);
  });

  test("waits anything between nothing and the whole time, so that clients do not come back together", () => {
    start({ random: () => 0 });
    last().onclose({ code: 1012 });
    assert.deepEqual(states.at(-1), { name: "reconnecting", seconds: 0 });
    clock.tick(0);
    assert.equal(count(), 2);
  });

  test("begins with short waits again after it has worked", () => {
    start();
    for (let failure = 0; failure < 4; failure += 1) {
      last().onclose({ code: 1006 });
      clock.tick(states.at(-1).seconds * 1000);
    }
    last().onopen({});
    last().onclose({ code: 1006 });
    assert.equal(states.at(-1).seconds, 1);
  });

  test("is given up when even heartbeats stay away, without waiting for the browser to notice", () => {
    start();
    last().onopen({});
    clock.tick(12_000);
    assert.equal(states.at(-1).name, "reconnecting");
    assert.equal(last().closed, true);
    clock.tick(1000);
    assert.equal(count(), 2);
  });

  test("is given up when nobody answers", () => {
    start({ heartbeat: null });
    clock.tick(12_000);
    assert.equal(states.at(-1).name, "reconnecting");
  });

  test("says nothing more once it has been given up", () => {
    start();
    const dead = last();
    dead.onopen({});
    clock.tick(13_000);
    assert.equal(dead.onmessage, null);
    assert.equal(dead.onclose, null);
  });
});

describe("the end", () => {
  for (const [code, reason] of [
    [1008, "not allowed"],
    [4001, "signed out"],
  ]) {
    test(`comes with code ${code}: ${reason}`, () => {
      start();
      last().onopen({});
      last().onclose({ code });
      assert.deepEqual(states.at(-1), { name: "offline", reason });
      clock.tick(3_600_000);
      assert.equal(count(), 1);
    });
  }

  test("comes when the page closes the line", () => {
    const line = start();
    last().onopen({});
    line.close();
    assert.equal(last().closed, true);
    clock.tick(3_600_000);
    assert.equal(count(), 1);
  });

  test("comes while a next attempt is awaited, too", () => {
    const line = start();
    last().onclose({ code: 1006 });
    line.close();
    clock.tick(3_600_000);
    assert.equal(count(), 1);
  });
});

describe("the network of the machine", () => {
  let network;

  beforeEach(() => {
    network = new EventTarget();
    globalThis.addEventListener = network.addEventListener.bind(network);
  });

  afterEach(() => {
    delete globalThis.addEventListener;
  });

  test("ends the wait when it is back", () => {
    start();
    last().onclose({ code: 1006 });
    network.dispatchEvent(new Event("online"));
    assert.equal(count(), 2);
    clock.tick(1000);
    assert.equal(count(), 2);
  });

  test("does not disturb a line that works, nor wake one that was closed", () => {
    const line = start();
    last().onopen({});
    network.dispatchEvent(new Event("online"));
    assert.equal(count(), 1);
    line.close();
    network.dispatchEvent(new Event("online"));
    assert.equal(count(), 1);
  });
});

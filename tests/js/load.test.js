/** Pages that load their state again when messages were lost for good, by themselves. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { EnvelopeSocket, FakeSocket, count, last, settled } from "./sockets.js";

/** @type {Clock} */
let clock;
/** @type {any[]} what the page was told, in order */
let events;
/** @type {{resolve: (state: any) => void, reject: (error: Error) => void, signal: AbortSignal}[]} */
let loads;

/** @param {any} [options] */
function start(options) {
  return connect("ws://site.test/ws/orders?subscribe-user", {
    WebSocket: /** @type {any} */ (EnvelopeSocket),
    random: () => 0.5,
    fallback: false, // it is loaded from the disk, which is no matter of the clock
    load: (signal) => new Promise((resolve, reject) => loads.push({ resolve, reject, signal })),
    onLoad: (state) => events.push(state),
    onMessage: ({ data }) => events.push(data),
    onLost: () => events.push("lost"),
    onError: (error) => events.push(error),
    ...options,
  });
}

/** @param {any} data @param {string} [position] */
const message = (data, position) => last().says("message", { audience: "user", data, position });

/** @param {any} state */
async function loaded(state) {
  loads[loads.length - 1].resolve(state);
  await settled();
}

/** A page that has its state. @param {any} [options] */
async function ready(options) {
  const line = start(options);
  last().welcomes();
  await settled();
  await loaded("state");
  events = [];
  return line;
}

beforeEach(() => {
  FakeSocket.opened = [];
  [events, loads] = [[], []];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

test("the state is loaded when the connection is open, and messages wait for it", async () => {
  start();
  await settled();
  assert.equal(loads.length, 0, "what is saved between a load and the welcome would be in neither");
  last().welcomes();
  message("1", "u.1.a");
  await settled();
  message("2", "u.2.b");
  assert.deepEqual([loads.length, events], [1, []]);
  await loaded("state");
  message("3", "u.3.c");
  assert.deepEqual(events, ["state", "1", "2", "3"]);
});

test("a page that has the state of its token loads nothing until it must", async () => {
  start({ token: "PAGE" });
  last().ends(1006);
  clock.tick(1000);
  last().welcomes({ recovered: true });
  message("1", "u.1.a");
  await settled();
  assert.deepEqual([loads.length, events], [0, ["1"]]);
});

test("a page that never connects gets its state, too, and once more when it does", async () => {
  start();
  for (const seconds of [1, 2]) {
    last().ends(1006);
    await settled();
    assert.equal(loads.length, 1);
    clock.tick(seconds * 1000);
  }
  await loaded("first");
  assert.deepEqual(events, ["first"]);
  last().welcomes();
  message("1");
  await settled();
  await loaded("second");
  assert.deepEqual(events, ["first", "second", "1"]);
});

for (const [what, happens, isTold] of /** @type {[string, () => void, boolean][]} */ ([
  ["messages are lost", () => last().says("error", { code: "lost", reason: "Lost.", position: "u.9.x" }), true],
  ["messages of a break are lost", () => last().welcomes({ recovered: false }), true],
  ["a facility without recovery connects again", () => last().welcomes({ recovered: null, token: undefined }), false],
])) {
  test(`the state is loaded again when ${what}`, async () => {
    await ready();
    happens();
    message("after", "u.10.y");
    await settled();
    assert.deepEqual([loads.length, events], [2, isTold ? ["lost"] : []]);
    await loaded("again");
    assert.deepEqual(events.slice(-2), ["again", "after"]);
  });
}

test("the state is not loaded again when all missed messages follow", async () => {
  await ready();
  last().ends(1006);
  clock.tick(1000);
  last().welcomes({ recovered: true });
  message("missed", "u.1.a");
  await settled();
  assert.deepEqual([loads.length, events], [1, ["missed"]]);
});

test("messages that wait survive a break, and come once though the server sends them again", async () => {
  start();
  last().welcomes();
  await settled();
  message("1", "u.1.a");
  last().ends(1006);
  clock.tick(1000);
  assert.equal(last().resume, "TOKEN~u.1.a");
  last().welcomes({ recovered: true });
  message("1", "b.1.a"); // by way of another audience
  message("2", "u.2.b");
  await loaded("state");
  assert.deepEqual([loads.length, events], [1, ["state", "1", "2"]]);
});

test("a loss while the state is loaded makes it load once more, one after the other", async () => {
  await ready();
  last().says("error", { code: "lost", reason: "Lost." });
  message("covered by the next load");
  await settled();
  last().says("error", { code: "lost", reason: "Lost again." });
  message("new");
  await settled();
  assert.equal(loads.length, 2);
  await loaded("may be old");
  clock.tick(1000);
  await settled();
  assert.equal(loads.length, 3);
  await loaded("new state");
  assert.deepEqual(events, ["lost", "lost", "may be old", "new state", "new"]);
});

test("a load that fails is told and repeated, less and less often, and messages wait", async () => {
  const failure = new Error("no network");
  start({ random: () => 1 });
  last().welcomes();
  message("1");
  const waits = [2, 4, 8, 16, 30, 30];
  for (const [index, seconds] of waits.entries()) {
    await settled();
    assert.equal(loads.length, index + 1);
    loads[index].reject(failure);
    await settled();
    last().says("ping");
    clock.tick(seconds * 1000 - 1);
    await settled();
    assert.equal(loads.length, index + 1);
    clock.tick(1);
  }
  await settled();
  assert.deepEqual(events, Array(waits.length).fill(failure));
  await loaded("state");
  assert.deepEqual(events.slice(-2), ["state", "1"]);
  last().says("error", { code: "lost", reason: "Lost." });
  await settled();
  loads[loads.length - 1].reject(failure);
  await settled();
  const count = loads.length;
  clock.tick(2000); // as the first time
  await settled();
  assert.equal(loads.length, count + 1);
});

test("a load that throws at once is told and repeated, too", async () => {
  let calls = 0;
  start({
    load() {
      calls += 1;
      throw new Error("of the page");
    },
  });
  last().welcomes();
  await settled();
  clock.tick(1000);
  await settled();
  assert.deepEqual([calls, String(events[0])], [2, "Error: of the page"]);
});

test("a load that hangs is given up after 30 s, and what it returns later does not count", async () => {
  start();
  last().welcomes();
  await settled();
  clock.tick(15_000);
  last().says("ping");
  clock.tick(14_999);
  assert.equal(loads[0].signal.aborted, false);
  clock.tick(1);
  await settled();
  assert.match(String(events[0]), /over 30 s/);
  assert.equal(loads[0].signal.aborted, true);
  clock.tick(1000);
  await settled();
  loads[0].resolve("old");
  await loaded("new");
  assert.deepEqual(events.slice(1), ["new"]);
});

test("no more than 1000 messages wait: then they are dropped, because a later load has what they say", async () => {
  start();
  last().welcomes();
  await settled();
  for (let number = 0; number < 1001; number += 1) message(String(number));
  await loaded("first");
  assert.deepEqual(events, ["first"]);
  clock.tick(1000);
  await settled();
  await loaded("second");
  assert.deepEqual(events, ["first", "second", "1000"]);
});

for (const [end, ends] of /** @type {[string, (line: any) => void][]} */ ([
  ["is closed", (line) => line.close()],
  ["has ended", () => last().ends(4001)],
])) {
  test(`nothing is loaded, told or called for a line that ${end}`, async () => {
    for (const [settle, isFirst] of /** @type {["resolve" | "reject", boolean][]} */ ([
      ["resolve", false],
      ["reject", false],
      ["resolve", true],
    ])) {
      const line = start();
      last().welcomes();
      message("1");
      await settled();
      const load = /** @type {any} */ (loads.at(-1));
      if (isFirst) load[settle]("at the last moment");
      ends(line);
      assert.equal(load.signal.aborted, true);
      load[settle]("late");
      await settled();
      clock.tick(3_600_000);
      await settled();
      assert.deepEqual([events, clock.timers.size], [[], 0]);
    }
    assert.deepEqual([loads.length, count()], [3, 3]);
  });
}

test("messages that waited are not told to a page that closes the line when it gets the state", async () => {
  const line = start({
    onLoad(/** @type {any} */ state) {
      events.push(state);
      line.close();
    },
  });
  last().welcomes();
  message("1");
  await settled();
  await loaded("state");
  assert.deepEqual(events, ["state"]);
});

test("a load that ends just before the line is closed tells nothing afterwards", async () => {
  for (let steps = 0; steps < 10; steps += 1) {
    events = [];
    const line = start();
    last().welcomes();
    message("1");
    await settled();
    loads[loads.length - 1].resolve("state");
    for (let step = 0; step < steps; step += 1) await null;
    const before = [...events];
    line.close();
    await settled();
    assert.deepEqual(events, before);
  }
  assert.deepEqual(events, ["state", "1"], "it was told in time, too");
});

describe("a page that fails when it gets the state", () => {
  test("still gets the messages that waited, and the load has not failed", async (context) => {
    /** @type {unknown[]} */
    const errors = [];
    const note = (/** @type {unknown} */ error) => errors.push(error);
    const others = process.listeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection").on("unhandledRejection", note);
    context.after(() => {
      process.removeListener("unhandledRejection", note);
      for (const listener of others) process.on("unhandledRejection", listener);
    });
    start({
      onLoad() {
        throw new Error("of the page");
      },
    });
    last().welcomes();
    message("1");
    await settled();
    await loaded("state");
    message("2");
    clock.tick(30_000);
    await settled();
    assert.deepEqual([events, errors.map(String), loads.length], [["1", "2"], ["Error: of the page"], 1]);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as numbers from "../../wsloop/static/wsloop/ops/numbers.js";
import { axisEnd, way } from "../../wsloop/static/wsloop/ops/plot.js";

/** @param {object} more @returns {any} */
function worker(more = {}) {
  const counters = { messages_in: 0, messages_out: 0, bytes_in: 0, bytes_out: 0, cpu: 0 };
  const lists = { sockets: [], busiest: [], slowest: [], delivery: new Array(16).fill(0) };
  return { machine: "one", worker: 1, pid: 10, time: 100, ...counters, ...lists, ...more };
}

/** @param {...any} workers @returns {any} */
const snapshot = (...workers) => ({ time: 100, workers, missing: 0, redis: {} });

describe("the numbers of /ops/", () => {
  test("rates are added up worker by worker", () => {
    const before = snapshot(worker({ messages_out: 10 }), worker({ worker: 2, pid: 11, messages_out: 1000 }));
    const after = snapshot(
      worker({ time: 102, messages_out: 30 }),
      worker({ worker: 2, pid: 12, time: 102, messages_out: 5 }), // another process than before
      worker({ machine: "two", pid: 10, time: 102, messages_out: 77 }),
    );
    const both = numbers.pairs(before, after);
    assert.equal(both.length, 1);
    assert.equal(numbers.rate(both, "messages_out"), 10);
    assert.deepEqual(numbers.pairs(null, after), []);
  });

  test("the same snapshot twice is no time in which anything could happen", () => {
    const one = snapshot(worker());
    assert.deepEqual(numbers.pairs(one, one), []);
  });

  test("a percentile lies within its bounds, as Prometheus has it", () => {
    const bounds = [1, 2, 4];
    assert.equal(numbers.percentile([0, 10, 0, 0, 99], bounds, 0.5), 1.5);
    assert.equal(numbers.percentile([5, 0, 5, 0, 99], bounds, 0.9), 3.6);
    assert.equal(numbers.percentile([1, 0, 0, 9, 99], bounds, 0.99), 4); // beyond the last bound: at least that
    assert.equal(numbers.percentile([0, 0, 0, 0, 0], bounds, 0.99), null);
    assert.equal(numbers.percentile([], bounds, 0.99), null);
  });

  test("histograms of all workers are compared with those before", () => {
    const some = new Array(16).fill(0);
    const before = snapshot(worker({ delivery: some.with(0, 5) }), worker({ worker: 2, delivery: some.with(1, 7) }));
    const after = snapshot(
      worker({ time: 102, delivery: some.with(0, 8) }),
      worker({ time: 102, worker: 2, delivery: some.with(1, 9) }),
    );
    assert.deepEqual(numbers.meanwhile(numbers.pairs(before, after), "delivery").slice(0, 3), [3, 2, 0]);
  });

  test("the busiest facilities come first; of a new one the rate is not known yet", () => {
    const before = snapshot(
      worker({ busiest: [["news", 10, 1000]] }),
      worker({ worker: 2, busiest: [["news", 10, 10]] }),
    );
    const rows = [
      ["old", 900, 90_000],
      ["news", 20, 2000],
    ];
    const after = snapshot(
      worker({ time: 102, busiest: rows }),
      worker({ time: 102, worker: 2, busiest: [["news", 20, 20]] }),
    );
    assert.deepEqual(numbers.busiest(numbers.pairs(before, after), after), [
      { facility: "news", messages: 5, deliveries: 505, total: 2020 },
      { facility: "old", messages: 0, deliveries: 0, total: 90_000 },
    ]);
  });

  test("sockets of one kind are added up, whatever signs their facility has", () => {
    const rows = [
      ["ws4redis", 'a",b', "user", 2],
      ["wsloop.v1", "c", "none", 1],
    ];
    assert.deepEqual(numbers.kinds(snapshot(worker({ sockets: rows }), worker({ sockets: [rows[0]] }))), [
      { dialect: "ws4redis", facility: 'a",b', audience: "user", sockets: 4 },
      { dialect: "wsloop.v1", facility: "c", audience: "none", sockets: 1 },
    ]);
    assert.equal(numbers.socketsOf(worker({ sockets: rows })), 3);
  });

  test("slow clients of all workers are sorted together", () => {
    const slow = (/** @type {number} */ bytes) => ({ queued_bytes: bytes });
    const all = snapshot(worker({ slowest: [slow(5), slow(1)] }), worker({ slowest: [slow(3)] }));
    assert.deepEqual(numbers.slowest(all).map((socket) => socket.queued_bytes), [5, 3, 1]);
  });

  test("sizes, numbers and times are short", () => {
    const sizes = [0, 512, 1536, 65_536, 5 * 2 ** 30].map(numbers.size);
    assert.deepEqual(sizes, ["0 B", "512 B", "1.5 KiB", "64 KiB", "5.0 GiB"]);
    assert.deepEqual([0, 0.44, 7, 12.6, 1234567].map(numbers.number), ["0", "0.4", "7", "13", "1,234,567"]);
    const times = [0.00042, 0.0031, 0.25, 3.21, 64, 600, 7300, 200_000].map(numbers.time);
    assert.deepEqual(times, ["0.42 ms", "3.1 ms", "250 ms", "3.2 s", "64 s", "10 min", "2 h", "2 days"]);
    assert.equal(numbers.time(null), "–");
  });
});

describe("the plots of /ops/", () => {
  test("axes end at a round number", () => {
    assert.deepEqual([0, 0.03, 1, 1.1, 4999, 5001].map(axisEnd), [1, 0.05, 1, 2, 5000, 10_000]);
  });

  test("a line has a gap where there is no value", () => {
    const line = way([1, 2, null, 3], (index) => index, (value) => value);
    assert.equal(line, "M0.0 1.0L1.0 2.0M3.0 3.0");
  });
});

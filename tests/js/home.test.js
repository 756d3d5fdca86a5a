import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { Journeys, axisEnd, median, partsOf } from "../../static/js/home/journeys.js";

describe("the way of the start page's messages", () => {
  const server = { view: 1, redis: 0.5 };
  /** @type {Journeys} */
  let journeys;
  beforeEach(() => {
    journeys = new Journeys();
  });

  test("a round trip takes from the click to the arrival", () => {
    journeys.sent("a", 100, false);
    journeys.answered("a", server);
    assert.deepEqual(journeys.arrived("a", 106), { number: 1, total: 6, recovered: false });
    assert.deepEqual(journeys.trips, [{ number: 1, total: 6, server }]);
    assert.equal(journeys.missed, 0);
  });

  test("the answer of the view may come after the message", () => {
    journeys.sent("a", 100, false);
    journeys.arrived("a", 106);
    assert.equal(partsOf(journeys.trips[0]), null);
    journeys.answered("a", server);
    assert.deepEqual(partsOf(journeys.trips[0]), { view: 1, redis: 0.5, rest: 4.5 });
  });

  test("an answer for a message that nobody knows is ignored", () => {
    journeys.answered("z", server);
    assert.deepEqual(journeys.trips, []);
  });

  test("a message that is faster than its view has no negative part", () => {
    assert.deepEqual(partsOf({ number: 1, total: 2, server: { view: 1.5, redis: 1 } }), {
      view: 1.5,
      redis: 1,
      rest: 0,
    });
  });

  test("what was sent without a connection is recovered, and no round trip", () => {
    journeys.sent("a", 0, true);
    journeys.sent("b", 1000, true);
    journeys.sent("c", 2000, false);
    assert.equal(journeys.missed, 2);
    assert.deepEqual(journeys.arrived("a", 2000), { number: 1, total: 2000, recovered: true });
    assert.deepEqual(journeys.arrived("b", 2001), { number: 2, total: 1001, recovered: true });
    assert.deepEqual(journeys.arrived("c", 2005), { number: 3, total: 5, recovered: false });
    assert.deepEqual(
      journeys.trips.map(({ number }) => number),
      [3],
    );
    assert.equal(journeys.missed, 0);
  });

  test("what was on its way when the connection broke is recovered", () => {
    journeys.sent("a", 0, false);
    journeys.away();
    assert.equal(journeys.missed, 1);
    assert.equal(journeys.arrived("a", 9).recovered, true);
  });

  test("a message of another window has no number; before one that was missed it was missed, too", () => {
    journeys.sent("a", 0, true);
    assert.deepEqual(journeys.arrived("other", 5), { number: null, total: null, recovered: true });
    journeys.arrived("a", 6);
    assert.deepEqual(journeys.arrived("other", 7), { number: null, total: null, recovered: false });
  });

  test("a message that was not published is not waited for", () => {
    journeys.sent("a", 0, true);
    journeys.failed("a");
    assert.equal(journeys.missed, 0);
  });

  test("what cannot be recovered is counted once", () => {
    journeys.sent("a", 0, true);
    journeys.sent("b", 0, false);
    assert.equal(journeys.giveUp(), 1);
    assert.equal(journeys.giveUp(), 0);
    assert.equal(journeys.arrived("b", 3).recovered, false);
  });

  test("it keeps the latest 40 round trips, and 1000 messages on their way", () => {
    for (let each = 0; each < 1001; each += 1) journeys.sent(`${each}`, 0, true);
    assert.equal(journeys.missed, 1000);
    journeys.giveUp();
    for (let each = 0; each < 50; each += 1) {
      journeys.sent(`${each}`, 0, false);
      journeys.arrived(`${each}`, 1);
    }
    assert.equal(journeys.trips.length, 40);
    assert.deepEqual([journeys.trips[0].number, journeys.trips.at(-1)?.number], [1012, 1051]);
  });
});

describe("numbers of the plot", () => {
  test("the median", () => {
    assert.equal(median([3]), 3);
    assert.equal(median([10, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 10]), 3);
  });

  test("an axis ends at 1, 2 or 5 times a power of ten", () => {
    const ends = [0.3, 1, 7, 10, 10.1, 21, 99, 501].map(axisEnd);
    assert.deepEqual(ends, [0.5, 1, 10, 10, 20, 50, 100, 1000]);
  });
});

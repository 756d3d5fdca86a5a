/** Publishing with a queue: what is said in a tunnel arrives, once and in order, or the page is told otherwise. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { connect, open } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { EnvelopeSocket, FakeSocket, PageSocket, last, settled } from "./sockets.js";

/** @type {Clock} */
let clock;

const QUEUE = { most: 100, seconds: 60 };

/**
 * The two ways to a subscription. `idle`: the number of timers when it has ended, of a socket that stays open.
 *
 * @typedef {import("../../wsloop/static/wsloop/wsloop.js").Subscription} Subscription
 * @type {Record<string, {subscribe: (queue: any) => Subscription, welcome: () => void, idle: number}>}
 */
const WAYS = {
  connect: {
    subscribe: (queue) =>
      connect("ws://site.test/ws/orders?publish-user", {
        queue,
        WebSocket: /** @type {any} */ (EnvelopeSocket),
        random: () => 0.5,
      }),
    welcome: () => last().welcomes(),
    idle: 0,
  },
  "open and subscribe": {
    subscribe: (queue) =>
      open("ws://site.test/ws/", { WebSocket: /** @type {any} */ (PageSocket), random: () => 0.5 }).subscribe("a", {
        publish: ["user"],
        queue,
      }),
    welcome() {
      last().opens();
      last().subscribes("a");
    },
    idle: 1,
  },
};

beforeEach(() => {
  FakeSocket.opened = [];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

/** @returns {any[]} what was published over the last socket */
const sent = () => last().sent.filter((/** @type {any} */ { type }) => type === "publish");

/** The server takes the last message. */
const acknowledge = () => last().says("ack", { id: sent().at(-1).id });

for (const [way, { subscribe, welcome, idle }] of Object.entries(WAYS)) {
  describe(`a queue of ${way}`, () => {
    test("keeps messages until there is a connection, and sends each when the one before has arrived", async () => {
      const line = subscribe(QUEUE);
      /** @type {string[]} */
      const done = [];
      for (const data of ["1", "2", "3"]) line.publish(data).then(() => done.push(data));
      welcome();
      for (const number of [1, 2, 3]) {
        assert.deepEqual(
          sent().map(({ data }) => data),
          ["1", "2", "3"].slice(0, number),
        );
        acknowledge();
        await settled();
        assert.equal(done.length, number);
      }
      const keys = sent().map(({ key }) => key);
      assert.equal(new Set(keys).size, 3);
      for (const key of keys) assert.match(key, /^[\w+/=]{22,64}$/);
      line.close();
      assert.equal(clock.timers.size, idle);
    });

    test("sends a message again, with its key, until the server has answered", async () => {
      const line = subscribe(QUEUE);
      welcome();
      const published = line.publish(Uint8Array.of(1));
      const next = line.publish("next");
      const keys = [sent()[0].key];
      for (let broken = 0; broken < 3; broken += 1) {
        last().ends(1006);
        clock.tick(1000 * 2 ** broken);
        if (broken === 1) last().ends(1006); // before any welcome
        if (broken === 1) clock.tick(4000);
        welcome();
        assert.deepEqual([sent().length, sent()[0].base64], [1, "AQ=="]);
        keys.push(sent()[0].key);
      }
      assert.equal(new Set(keys).size, 1);
      acknowledge();
      await published;
      assert.deepEqual([sent().length, sent()[1].data], [2, "next"]);
      acknowledge();
      await next;
    });

    test("tries again on the open socket when the server cannot reach Redis, or does not answer", async () => {
      const line = subscribe(QUEUE);
      welcome();
      const published = line.publish("1");
      line.publish("2");
      last().says("error", { id: sent()[0].id, code: "unavailable", reason: "Redis is down." });
      assert.equal(sent().length, 1);
      clock.tick(1000);
      last().says("ping");
      clock.tick(10_000); // no answer
      clock.tick(2000);
      assert.deepEqual(
        sent().map(({ data }) => data),
        ["1", "1", "1"],
      );
      assert.equal(new Set(sent().map(({ key }) => key)).size, 1);
      acknowledge();
      await published;
      assert.equal(sent().at(-1).data, "2");
      last().says("error", { id: sent().at(-1).id, code: "unavailable", reason: "Redis is down." });
      const count = sent().length;
      clock.tick(1000); // as the first time
      assert.equal(sent().length, count + 1);
    });

    test("does not repeat what the server has refused, and goes on with the next", async () => {
      const line = subscribe(QUEUE);
      welcome();
      const refused = line.publish("1");
      const next = line.publish("2");
      last().says("error", { id: sent()[0].id, code: "refused", reason: "Not you." });
      await assert.rejects(refused, { name: "RequestError", code: "refused", message: "Not you." });
      acknowledge();
      await next;
    });

    test("gives up when the time is over: what was never sent, and what may have arrived", async () => {
      const line = subscribe({ most: 100, seconds: 5 });
      welcome();
      const maybe = line.publish("1");
      const never = line.publish("2");
      last().ends(1006);
      clock.tick(1000);
      clock.tick(4000);
      await assert.rejects(maybe, { code: "unknown" });
      await assert.rejects(never, { code: "disconnected" });
      welcome();
      assert.deepEqual(sent(), []);
      const third = line.publish("3");
      acknowledge();
      await third;
    });

    test("counts the time that the machine sleeps", async () => {
      const line = subscribe(QUEUE);
      const published = line.publish("1");
      clock.sleep(60_000);
      welcome();
      assert.deepEqual(sent(), []);
      await assert.rejects(published, { code: "disconnected" });
    });

    test("is bounded, and says so", async () => {
      const line = subscribe({ most: 2, seconds: 60 });
      const waiting = [line.publish("1"), line.publish("2")];
      await assert.rejects(line.publish("3"), { name: "RequestError", code: "full" });
      welcome();
      acknowledge();
      acknowledge();
      await Promise.all(waiting);
    });

    test("ends with the subscription", async () => {
      for (const end of [(/** @type {any} */ line) => line.close(), () => last().ends(4001)]) {
        const line = subscribe(QUEUE);
        welcome();
        const [maybe, never] = [line.publish("1"), line.publish("2")];
        end(line);
        await assert.rejects(maybe, { code: "unknown" });
        await assert.rejects(never, { code: "disconnected" });
        await assert.rejects(line.publish("3"), { code: "disconnected" });
        clock.tick(10_000);
        assert.equal(clock.timers.size, idle);
      }
    });

    test("needs bounds, and a time for which the server remembers keys", () => {
      const most = 1;
      const wrong = [{}, { most }, { most: 0, seconds: 60 }, { most, seconds: 0 }, { most, seconds: 86_401 }];
      for (const queue of wrong) {
        assert.throws(() => subscribe(queue), { name: "RangeError", message: /most.*seconds/ });
      }
      assert.equal(clock.timers.size, idle * wrong.length);
    });
  });
}

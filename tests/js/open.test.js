/** One socket for the whole page: several subscriptions, each of which lives and fails by itself. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { open } from "../../wsloop/static/wsloop/wsloop.js";
import { Clock } from "./clock.js";
import { FakeSocket, PageSocket, count, last, settled } from "./sockets.js";

const HOUR = 3_600_000;
/** @type {Clock} */
let clock;
/** @type {any[]} what happened: facility, kind, and what was said */
let events;
/** @type {any[]} */
let states;

/** @param {any} [options] */
function start(options = {}) {
  return open("ws://site.test/ws/", {
    WebSocket: /** @type {any} */ (PageSocket),
    random: () => 0.5,
    onState: (/** @type {any} */ state) => states.push(state),
    ...options,
  });
}

/** An open socket. @param {any} [options] */
function ready(options) {
  const socket = start(options);
  last().opens();
  return socket;
}

/** @typedef {import("../../wsloop/static/wsloop/wsloop.js").Socket} Socket */
/** @param {Socket} socket @param {string} facility @param {any} [more] */
function subscribe(socket, facility, more) {
  /** @param {string} kind */
  const note = (kind) => (/** @type {any} */ said) => events.push([facility, kind, said]);
  return socket.subscribe(facility, {
    audiences: ["user"],
    onMessage: ({ data }) => events.push([facility, "message", data]),
    onState: note("state"),
    onLost: note("lost"),
    onPresence: note("presence"),
    ...more,
  });
}

/** @param {string} kind @param {string} [facility] */
const told = (kind, facility) =>
  events.filter((event) => event[1] === kind && facility === (facility && event[0])).map((event) => event[2]);

/** A welcomed subscription. @param {string} facility @param {any} [more] @param {object} [welcome] */
function subscribed(facility, more, welcome) {
  const socket = ready();
  const subscription = subscribe(socket, facility, more);
  last().subscribes(facility, welcome);
  return { socket, subscription };
}

beforeEach(() => {
  FakeSocket.opened = [];
  [events, states] = [[], []];
  clock = new Clock();
  clock.install();
});

afterEach(() => clock.restore());

describe("the socket of a page", () => {
  test("asks for its subscriptions when it is open, with what each wants", () => {
    const socket = start();
    assert.equal(last().url, "ws://site.test/ws/");
    assert.deepEqual(last().protocols, ["wsloop.v1"]);
    const wanted = { audiences: ["user", "broadcast"], publish: ["user"], presence: true, token: "PAGE" };
    socket.subscribe("orders", /** @type {any} */ (wanted));
    subscribe(socket, "news");
    assert.deepEqual(last().sent, []);
    last().opens();
    const { token, ...frame } = wanted;
    assert.deepEqual(last().sent, [
      { type: "subscribe", id: 1, facility: "orders", ...frame, resume: token },
      { type: "subscribe", id: 2, facility: "news", audiences: ["user"] },
    ]);
    subscribe(socket, "later");
    assert.deepEqual(last().asked("subscribe"), { type: "subscribe", id: 3, facility: "later", audiences: ["user"] });
  });

  test("tells its own state, and that of each subscription", () => {
    const socket = start();
    const orders = subscribe(socket, "orders");
    assert.deepEqual([states, socket.state], [[{ name: "connecting" }], { name: "connecting" }]);
    last().opens();
    assert.deepEqual([states.at(-1), orders.state], [{ name: "connected" }, { name: "connecting" }]);
    last().subscribes("orders", { recovered: true });
    assert.deepEqual(orders.state, { name: "connected", subscribed: ["user"], recovered: true });
    last().ends(1012);
    const waits = { name: "reconnecting", seconds: 1 };
    assert.deepEqual([states.at(-1), socket.state, orders.state], [waits, waits, waits]);
    assert.deepEqual(
      told("state", "orders").map(({ name }) => name),
      ["connecting", "connected", "reconnecting"],
    );
  });

  test("passes frames on to the subscription of their facility, and ignores others", () => {
    const { socket } = subscribed("orders");
    subscribe(socket, "news");
    last().subscribes("news", { presence: { users: ["mary"], anonymous: 0 } });
    last().says("message", { facility: "news", audience: "user", data: "1" });
    last().says("message", { facility: "orders", audience: "user", data: "2" });
    for (const facility of ["unknown", "toString", "", null, undefined]) {
      last().says("message", { facility, audience: "user", data: "of nobody" });
      last().says("error", { facility, code: "lost", reason: "Lost." });
    }
    assert.deepEqual(told("message"), ["1", "2"]);
    last().says("presence", { facility: "orders", event: "join", user: "john" });
    last().says("presence", { facility: "news", event: "join", user: "john" });
    assert.deepEqual(told("presence", "orders"), []);
    assert.deepEqual(told("presence", "news").at(-1), { users: ["john", "mary"], anonymous: 0 });
    last().says("error", { facility: "orders", code: "lost", reason: "Lost.", audience: "user" });
    assert.deepEqual([told("lost", "orders"), told("lost", "news")], [[{ reason: "Lost.", audience: "user" }], []]);
  });

  test("knows the channels of a site's own subscriber by the labels of the welcome", () => {
    const { socket } = subscribed("orders", {}, { other: ["warehouse", "shop 7", "another facility"] });
    subscribe(socket, "news");
    last().subscribes("news");
    last().says("message", { channel: "shop 7", audience: "other", data: "1", position: "c.1.x" });
    last().says("message", { channel: "unknown", audience: "other", data: "2" });
    last().says("message", { facility: "another facility", audience: "user", data: "3" });
    last().says("message", { facility: "news", audience: "user", data: "4" });
    assert.deepEqual([told("message", "orders"), told("message", "news")], [["1", "3"], ["4"]]);
    last().ends(1006);
    clock.tick(1000);
    last().opens();
    assert.equal(last().asked("subscribe", { facility: "orders" }).resume, "T-orders~c.1.x");
  });

  test("asks for all subscriptions at once when it is back, each from its own positions", () => {
    const { socket } = subscribed("orders");
    subscribe(socket, "news");
    last().subscribes("news");
    last().says("message", { facility: "news", audience: "user", data: "1", position: "n.1.x" });
    last().says("message", { facility: "orders", audience: "user", data: "2", position: "o.1.y" });
    last().says("message", { facility: "orders", audience: "user", data: "3", position: "o.2.z" });
    last().ends(1006);
    clock.tick(1000);
    assert.deepEqual([count(), last().url], [2, "ws://site.test/ws/"]);
    last().readyState = 1;
    last().onopen(); // before any answer
    const asked = last().sent.map((/** @type {any} */ { type, facility, resume }) => [type, facility, resume]);
    assert.deepEqual(asked, [
      ["subscribe", "orders", "T-orders~o.2.z"],
      ["subscribe", "news", "T-news~n.1.x"],
    ]);
    assert.deepEqual(last().lists, [2]); // the server merges what they have missed
  });

  test("sends no list that may be too large for the server", () => {
    const socket = start();
    for (let number = 0; number < 70; number += 1) subscribe(socket, `facility-${number}`);
    last().opens();
    assert.deepEqual(last().lists, [30, 30, 10]);
    subscribe(socket, "later");
    assert.deepEqual([last().lists.length, last().sent.length], [3, 71]);
  });

  test("ends with all of its subscriptions when it may not come back", () => {
    const { socket, subscription } = subscribed("orders");
    last().ends(4001);
    const over = { name: "offline", reason: "signed out" };
    assert.deepEqual([states.at(-1), subscription.state, told("state").at(-1)], [over, over, over]);
    subscribe(socket, "news");
    assert.deepEqual(told("state", "news"), [over]);
    clock.tick(HOUR);
    assert.deepEqual([count(), clock.timers.size], [1, 0]);
  });

  test("is closed by the page with all of its subscriptions, which then call nothing", async () => {
    const { socket, subscription } = subscribed("orders");
    const published = subscription.publish("1");
    const called = socket.call("GET", "/");
    events = [];
    socket.close();
    await assert.rejects(published, { code: "unknown" });
    await assert.rejects(called, { code: "unknown" });
    clock.tick(HOUR);
    assert.deepEqual([count(), clock.timers.size, last().readyState, events], [1, 0, 2, []]);
    assert.deepEqual([socket.state.name, subscription.state.name], ["offline", "offline"]);
    await assert.rejects(subscription.publish("2"), { code: "disconnected" });
    socket.close();
    subscription.close();
  });

  test("that the page closes while it tells its state tells the other subscriptions nothing more", () => {
    const socket = ready();
    subscribe(socket, "orders", {
      onState: (/** @type {any} */ { name }) => name === "reconnecting" && socket.close(),
    });
    subscribe(socket, "news");
    last().ends(1006);
    clock.tick(HOUR);
    assert.deepEqual(
      [told("state", "news"), count(), clock.timers.size],
      [[{ name: "connecting" }], 1, 0],
    );
  });

  test("tells all subscriptions what happens, though the page fails in one", () => {
    const { socket } = subscribed("orders", {
      onState({ name = "" }) {
        if (name === "reconnecting") throw new Error("of the page");
      },
    });
    subscribe(socket, "news");
    assert.throws(() => last().ends(1012), /of the page/);
    assert.deepEqual(told("state", "news").at(-1), { name: "reconnecting", seconds: 1 });
    clock.tick(1000);
    last().opens();
    assert.equal(last().sent.length, 2);
  });
});

describe("a subscription", () => {
  test("without a name is refused by the server, as any other one that it does not like", () => {
    const socket = ready();
    const nameless = subscribe(socket, "");
    assert.deepEqual(last().asked("subscribe"), { type: "subscribe", id: 1, facility: "", audiences: ["user"] });
    last().refuses("", "frame", "There is no facility.");
    assert.deepEqual(nameless.state, { name: "offline", reason: "There is no facility." });
  });

  test("gets what follows its own welcome, nothing that was for an earlier one", () => {
    const { socket, subscription } = subscribed("orders");
    subscription.close();
    assert.deepEqual(last().asked("unsubscribe"), { type: "unsubscribe", id: 2, facility: "orders" });
    last().says("message", { facility: "orders", audience: "user", data: "of the first" });
    const second = subscribe(socket, "orders");
    last().says("message", { facility: "orders", audience: "user", data: "of the first, too" });
    last().says("error", { facility: "orders", code: "lost", reason: "Lost." });
    last().says("unsubscribed", { id: 2, facility: "orders" });
    assert.equal(second.state.name, "connecting");
    last().subscribes("orders");
    last().says("message", { facility: "orders", audience: "user", data: "of the second" });
    assert.deepEqual([told("message"), told("lost")], [["of the second"], []]);
  });

  test("that is closed before its welcome stays closed", () => {
    const socket = ready();
    const first = subscribe(socket, "orders");
    const { id } = last().asked("subscribe");
    first.close();
    const second = subscribe(socket, "orders");
    last().says("welcome", { id, facility: "orders", subscribed: [], recovered: null, token: "FIRST" });
    last().says("message", { facility: "orders", audience: "user", data: "of the first" });
    assert.deepEqual([second.state.name, second.token, told("message")], ["connecting", "", []]);
    assert.deepEqual([first.state.name, first.token], ["offline", ""]);
    last().subscribes("orders");
    assert.deepEqual(
      told("state").map(({ name }) => name),
      ["connecting", "connecting", "connected"],
    );
  });

  test("is asked for once when it is started, closed and started again, as React's StrictMode does", () => {
    const socket = ready();
    clock.microtasks = [];
    subscribe(socket, "orders").close();
    const second = subscribe(socket, "orders");
    assert.deepEqual(last().sent, []);
    clock.turn();
    assert.equal(last().sent.length, 1);
    last().subscribes("orders");
    assert.equal(second.state.name, "connected");
  });

  test("takes one answer to each question", () => {
    subscribed("orders");
    last().subscribes("orders");
    last().refuses("orders", "refused");
    assert.deepEqual(
      told("state").map(({ name }) => name),
      ["connecting", "connected"],
    );
  });

  test("is the only one to its facility on this socket", () => {
    const { socket } = subscribed("orders");
    assert.throws(() => subscribe(socket, "orders"), /Close the subscription to orders first/);
    assert.equal(last().sent.length, 1);
  });

  for (const code of ["refused", "limit", "frame", "something new"]) {
    test(`that is answered with ${code} ends, and no other does`, () => {
      const { socket } = subscribed("news");
      const orders = subscribe(socket, "orders");
      last().refuses("orders", code, "Not you.");
      assert.deepEqual(orders.state, { name: "offline", reason: "Not you." });
      assert.deepEqual(told("state", "orders").at(-1), orders.state);
      clock.tick(20_000);
      last().says("message", { facility: "news", audience: "user", data: "1" });
      assert.deepEqual([told("message", "news"), states.at(-1), count()], [["1"], { name: "connected" }, 1]);
      last().ends(1006);
      clock.tick(1000);
      last().opens();
      assert.deepEqual(
        last().sent.map((/** @type {any} */ { facility }) => facility),
        ["news"],
      );
      subscribe(socket, "orders"); // the page may ask again
      last().subscribes("orders");
      assert.equal(told("state", "orders").at(-1).name, "connected");
    });
  }

  for (const code of ["unavailable", "internal"]) {
    test(`that is answered with ${code} is asked for again on the open socket, less and less often`, () => {
      const socket = ready({ random: () => 1 });
      subscribe(socket, "orders");
      const waits = [];
      for (let attempt = 1; attempt <= 6; attempt += 1) {
        last().refuses("orders", code);
        const { name, seconds, reason } = told("state").at(-1);
        assert.deepEqual([name, reason], ["reconnecting", "Because."]);
        waits.push(seconds);
        last().says("ping");
        clock.tick(seconds * 1000 - 1);
        assert.equal(last().sent.length, attempt);
        clock.tick(1);
        assert.equal(last().sent.length, attempt + 1);
      }
      assert.deepEqual([waits, count()], [[2, 4, 8, 16, 30, 30], 1]);
      last().subscribes("orders");
      assert.equal(told("state").at(-1).name, "connected");
    });
  }

  test("that the server has ended comes back with its positions, soon if it has worked for a while", () => {
    const { socket } = subscribed("orders");
    subscribe(socket, "news");
    last().subscribes("news");
    last().says("message", { facility: "orders", audience: "user", data: "1", position: "o.1.x" });
    const waits = [];
    for (const steady of [0, 0, 10_000]) {
      clock.tick(steady);
      last().says("unsubscribed", { facility: "orders", code: "unavailable", reason: "Interrupted." });
      last().says("message", { facility: "orders", audience: "user", data: "no longer subscribed" });
      waits.push(told("state", "orders").at(-1).seconds);
      clock.tick(1000 * waits[waits.length - 1]);
      assert.equal(last().asked("subscribe").resume, "T-orders~o.1.x");
      last().subscribes("orders", { recovered: true });
      last().says("message", { facility: "orders", audience: "user", data: "1", position: "o.1.x" });
    }
    assert.deepEqual(waits, [1, 2, 1]);
    clock.tick(10_000);
    last().says("unsubscribed", { facility: "orders", code: "unavailable", reason: "Interrupted." });
    for (const seconds of [1, 2, 4, 8]) {
      assert.equal(told("state", "orders").at(-1).seconds, seconds);
      clock.tick(seconds * 1000);
      last().refuses("orders", "unavailable");
    }
    assert.deepEqual([told("message"), told("state", "news").at(-1).name], [["1"], "connected"]);
  });

  test("that waits for its next attempt starts with the others when the socket is back, and is asked for once", () => {
    const socket = ready({ random: () => 1 });
    subscribe(socket, "orders");
    for (let failure = 0; failure < 4; failure += 1) {
      last().refuses("orders", "unavailable");
      clock.tick(failure < 3 ? 30_000 : 0);
      last().says("ping");
    }
    last().ends(1006);
    clock.tick(2000);
    last().opens();
    assert.equal(last().sent.length, 1);
    last().subscribes("orders");
    clock.tick(16_000);
    assert.deepEqual([last().sent.length, told("state").at(-1).name], [1, "connected"]);
  });

  test("can be closed while it waits", () => {
    const socket = ready();
    const orders = subscribe(socket, "orders");
    last().refuses("orders", "unavailable");
    orders.close();
    last().says("ping");
    clock.tick(30_000);
    assert.deepEqual(
      last().sent.map((/** @type {any} */ { type }) => type),
      ["subscribe"],
    );
  });

  test("publishes to its facility, and to no other", async () => {
    const { subscription } = subscribed("orders");
    const published = subscription.publish("1");
    assert.deepEqual(last().asked("publish"), { type: "publish", id: 2, facility: "orders", data: "1" });
    last().says("ack", { id: 2, facility: "orders" });
    assert.equal(await published, undefined);
  });

  test("cannot publish, nor read the history, before its welcome", async () => {
    const orders = subscribe(ready(), "orders");
    await assert.rejects(orders.publish("1"), { name: "RequestError", code: "disconnected" });
    await assert.rejects(orders.history(), { name: "RequestError", code: "disconnected" });
    assert.equal(last().sent.length, 1);
  });
});

describe("the history", () => {
  test("comes in pages, whose messages have the ids of those that arrived", async () => {
    /** @type {any[]} */
    const live = [];
    const { subscription } = subscribed("orders", { onMessage: (/** @type {any} */ message) => live.push(message) });
    last().says("message", { facility: "orders", audience: "user", data: "3", position: "o.3.z" });
    const asked = subscription.history({ limit: 2, before: "CURSOR" });
    const { id, ...frame } = last().asked("history");
    assert.deepEqual(frame, { type: "history", facility: "orders", limit: 2, before: "CURSOR" });
    const messages = [
      { audience: "group", name: "staff", base64: "AAEC/w==", position: "o.2.y" },
      { audience: "user", data: "3", position: "o.3.z" },
    ];
    last().says("history", { id, facility: "orders", messages, before: "OLDER" });
    const more = { own: false, kept: false };
    assert.deepEqual(await asked, {
      messages: [
        { audience: "group", name: "staff", data: Uint8Array.of(0, 1, 2, 255), id: "y", ...more },
        { audience: "user", data: "3", id: "z", ...more },
      ],
      before: "OLDER",
    });
    assert.deepEqual(live, [{ audience: "user", data: "3", id: "z", ...more }]);
    assert.equal(subscription.token, "T-orders~o.3.z");
  });

  test("of everything is asked for without options, and may end", async () => {
    const { subscription } = subscribed("orders");
    const asked = subscription.history();
    const { id, ...frame } = last().asked("history");
    assert.deepEqual(frame, { type: "history", facility: "orders" });
    last().says("history", { id, facility: "orders", messages: [], before: null });
    assert.deepEqual(await asked, { messages: [], before: null });
  });

  test("may be refused, or not come", async () => {
    const { subscription } = subscribed("orders");
    const refused = subscription.history();
    last().says("error", { id: 2, facility: "orders", code: "refused", reason: "No recovery." });
    await assert.rejects(refused, { code: "refused", message: "No recovery." });
    const late = subscription.history();
    clock.tick(10_000);
    await assert.rejects(late, { code: "unknown" });
    assert.equal(subscription.state.name, "connected");
  });
});

describe("a call", () => {
  test("is answered with the status and the data of the view", async () => {
    const socket = ready();
    const first = socket.call("POST", "/api/orders/7/", { state: "paid" });
    const second = socket.call("DELETE", "/api/orders/8/");
    const third = socket.call("GET", "/old/");
    assert.deepEqual(last().sent, [
      { type: "call", id: 1, method: "POST", path: "/api/orders/7/", data: { state: "paid" } },
      { type: "call", id: 2, method: "DELETE", path: "/api/orders/8/" },
      { type: "call", id: 3, method: "GET", path: "/old/" },
    ]);
    last().says("answer", { id: 2, status: 204 });
    last().says("answer", { id: 1, status: 400, data: { errors: ["No."] } });
    last().says("answer", { id: 3, status: 302, location: "/new/" });
    assert.deepEqual(await first, { status: 400, data: { errors: ["No."] } });
    assert.deepEqual(await second, { status: 204 });
    assert.deepEqual(await third, { status: 302, location: "/new/" });
  });

  test("is rejected where there is no connection, no answer, or a refusal", async () => {
    const socket = start();
    await assert.rejects(socket.call("GET", "/"), { name: "RequestError", code: "disconnected" });
    last().opens();
    const refused = socket.call("GET", "/admin/");
    last().says("error", { id: 1, code: "refused", reason: "This path cannot be called." });
    await assert.rejects(refused, { code: "refused", message: "This path cannot be called." });
    const broken = socket.call("GET", "/");
    last().ends(1006);
    await assert.rejects(broken, { code: "unknown" });
    clock.tick(1000);
    last().opens();
    const late = socket.call("GET", "/");
    for (let half = 0; half < 2; half += 1) {
      last().says("ping");
      clock.tick(30_000);
    }
    await assert.rejects(late, { code: "unknown" });
    last().says("answer", { id: 3, status: 200 }); // too late, and harmless
    last().says("goodbye", { code: 1012, reason: "restarting", reconnect: true, after: 10 });
    await assert.rejects(socket.call("GET", "/"), { code: "disconnected" });
  });
});

describe("a loop over the messages", () => {
  /** @param {string} data */
  const message = (data) => last().says("message", { facility: "orders", audience: "user", data });

  /** @param {AsyncIterable<any>} subscription @param {any[]} seen */
  async function collect(subscription, seen) {
    for await (const { data } of subscription) {
      seen.push(data);
      if (data === "break") break;
    }
    seen.push("over");
  }

  test("gets each message, as onMessage does, and ends with the subscription", async () => {
    const { subscription } = subscribed("orders");
    /** @type {any[]} */
    const [first, second] = [[], []];
    message("before");
    collect(subscription, first);
    message("1");
    await settled();
    message("2");
    collect(subscription, second);
    message("3");
    await settled();
    assert.deepEqual([first, second, told("message")], [["1", "2", "3"], ["3"], ["before", "1", "2", "3"]]);
    message("break");
    await settled();
    message("4");
    last().ends(4001);
    await settled();
    for (const seen of [first, second]) assert.deepEqual(seen.slice(-2), ["break", "over"]);
    /** @type {any[]} */
    const waits = [];
    const { subscription: other } = subscribed("orders");
    collect(other, waits);
    await settled();
    last().ends(4001);
    await settled();
    assert.deepEqual(waits, ["over"]);
  });

  test("that has ended is not too slow", async () => {
    const { subscription } = subscribed("orders");
    /** @type {any[]} */
    const seen = [];
    collect(subscription, seen);
    message("break");
    await settled();
    for (let number = 0; number < 1003; number += 1) message(String(number));
    assert.deepEqual([seen, told("lost")], [["break", "over"], []]);
  });

  test("gets what arrived before the server ended the subscription, and nothing after the page closed it", async () => {
    const { subscription } = subscribed("orders");
    /** @type {any[]} */
    const seen = [];
    collect(subscription, seen);
    message("1");
    last().ends(4001);
    await settled();
    assert.deepEqual(seen, ["1", "over"]);
    /** @type {any[]} */
    const none = [];
    const { subscription: other } = subscribed("orders");
    collect(other, none);
    message("1");
    other.close();
    await settled();
    assert.deepEqual(none, ["over"]);
    await collect(other, none);
    assert.deepEqual(none, ["over", "over"]);
  });

  test("that is too slow loses the oldest of 1000 messages, and is told once", async () => {
    const { subscription } = subscribed("orders");
    /** @type {any[]} */
    const seen = [];
    collect(subscription, seen);
    for (let number = 0; number < 1003; number += 1) message(String(number));
    assert.match(told("lost")[0].reason, /too slow/);
    assert.equal(told("lost").length, 1);
    await settled();
    assert.deepEqual([seen.length, seen[0], seen.at(-1)], [1000, "3", "1002"]);
    for (let number = 0; number < 1001; number += 1) message(String(number));
    assert.equal(told("lost").length, 2);
  });
});

describe("messages that are parsed", () => {
  test("have data of the page's own type; what cannot be parsed is told and dropped", async () => {
    /** @type {any[]} */
    const orders = [];
    /** @type {any[]} */
    const errors = [];
    const { subscription } = subscribed("orders", {
      parse: JSON.parse,
      onMessage: (/** @type {any} */ { data }) => orders.push(data.order),
      onError: (/** @type {any} */ error) => errors.push(error),
    });
    const contents = [{ data: '{"order": 7}' }, { data: "{" }, { base64: "AAEC/w==" }, { data: '{"order": 8}' }];
    for (const content of contents) {
      last().says("message", { facility: "orders", audience: "user", ...content });
    }
    assert.deepEqual([orders, errors.map(({ name }) => name)], [
      [7, 8],
      ["SyntaxError", "TypeError"],
    ]);
    const asked = subscription.history();
    const messages = [{ audience: "user", data: "[1]" }, { audience: "user", data: "" }];
    last().says("history", { id: 2, messages, before: null });
    assert.deepEqual([(await asked).messages.map(({ data }) => data), errors.length], [[[1]], 3]);
  });

  test("are told of in the console where the page has no function for errors", (context) => {
    const error = context.mock.method(console, "error", () => {});
    subscribed("orders", { parse: JSON.parse });
    last().says("message", { facility: "orders", audience: "user", data: "{" });
    assert.match(String(error.mock.calls[0].arguments[0]), /^SyntaxError/);
  });
});

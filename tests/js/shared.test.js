import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { openShared } from "../../wsloop/static/wsloop/shared.js";
import { Clock } from "./clock.js";
import { FakeSocket, PageSocket, count, last, settled } from "./sockets.js";

/** @type {Clock} */
let clock;
/** @type {import("../../wsloop/static/wsloop/shared.js").SharedSocket} */
let socket;
let changes = 0;

const NEWS = { audiences: /** @type {["user"]} */ (["user"]) };
const changed = () => {
  changes += 1;
};

/** What components do in one turn. @param {() => any} components */
function turn(components) {
  clock.microtasks = [];
  const result = components();
  clock.turn();
  return result;
}

/** Frames of a type that the client has sent. @param {string} type @returns {any[]} */
const asked = (type) => last().sent.filter((/** @type {any} */ frame) => frame.type === type);

/** @param {string} data @param {object} [more] */
const says = (data, more = {}) => last().says("message", { facility: "news", audience: "user", data, ...more });

const texts = () => socket.read("news").messages.map(({ data }) => data);

beforeEach(() => {
  FakeSocket.opened = [];
  changes = 0;
  clock = new Clock();
  clock.install();
  socket = openShared("ws://site.test/ws/", { WebSocket: /** @type {any} */ (PageSocket), random: () => 0.5 });
  last().opens();
});

afterEach(() => clock.restore());

describe("a shared subscription", () => {
  test("has what all components of a page need together", () => {
    turn(() => {
      socket.follow("news", { audiences: ["user"] }, changed);
      socket.follow("news", { audiences: ["broadcast", "user"], publish: ["user"] }, changed);
      socket.follow("news", { presence: true }, changed);
    });
    const [frame, ...others] = asked("subscribe");
    assert.deepEqual(others, []);
    assert.deepEqual(
      [frame.audiences, frame.publish, frame.presence],
      [["broadcast", "user"], ["user"], true],
    );
    assert.equal(count(), 1);
  });

  test("gives everybody the same messages, and another object with each change", () => {
    turn(() => [socket.follow("news", NEWS, changed), socket.follow("news", NEWS, changed)]);
    last().subscribes("news");
    const before = socket.read("news");
    assert.equal(before.state.name, "connected");
    assert.equal(socket.read("news"), before);
    changes = 0;
    says("a");
    assert.equal(changes, 2);
    assert.deepEqual([before.messages, texts()], [[], ["a"]]);
  });

  test("goes on where it stood when a component wants more", () => {
    socket.follow("news", NEWS, changed);
    last().subscribes("news");
    says("a", { position: "1.1.a" });
    turn(() => socket.follow("news", { presence: true }, changed));
    assert.equal(asked("unsubscribe").length, 1);
    const { resume, presence, audiences } = asked("subscribe")[1];
    assert.deepEqual([resume, presence, audiences], ["T-news~1.1.a", true, ["user"]]);
    last().subscribes("news", { recovered: true, presence: { users: ["john"], anonymous: 1 } });
    assert.deepEqual(socket.read("news").presence, { users: ["john"], anonymous: 1 });
    assert.deepEqual(texts(), ["a"]);
  });

  test("is the same one when a component comes at once, or wants less", () => {
    turn(() => socket.follow("news", { ...NEWS, presence: true }, changed).close()); // StrictMode
    turn(() => socket.follow("news", NEWS, changed));
    assert.equal(asked("subscribe").length, 1);
    assert.equal(asked("unsubscribe").length, 0);
  });

  test("ends a second after its last component, with its messages", () => {
    const [first, second] = turn(() => [socket.follow("news", NEWS, changed), socket.follow("news", NEWS, changed)]);
    last().subscribes("news");
    says("a");
    first.close();
    clock.tick(2000);
    second.close();
    second.close();
    clock.tick(900);
    says("b"); // the next page gets it
    turn(() => socket.follow("news", NEWS, changed)).close();
    assert.deepEqual(texts(), ["a", "b"]);
    clock.tick(999);
    assert.equal(asked("unsubscribe").length, 0);
    clock.tick(1);
    assert.equal(asked("unsubscribe").length, 1);
    assert.deepEqual(texts(), []);
    turn(() => socket.follow("news", NEWS, changed));
    assert.equal(asked("subscribe").length, 2);
  });

  test("is refused without audiences", () => {
    assert.throws(() => socket.follow("news", {}, changed), {
      name: "TypeError",
      message: 'To follow news, name audiences: { audiences: ["user"] }, for example.',
    });
    assert.equal(asked("subscribe").length, 0);
  });
});

describe("messages", () => {
  test("are limited, to the largest limit", () => {
    turn(() => [1, 2].map((limit) => socket.follow("news", { ...NEWS, limit }, changed)));
    last().subscribes("news");
    for (const text of ["a", "b", "c"]) says(text);
    assert.deepEqual(texts(), ["b", "c"]);
  });

  test("replace the one with the same key, in its place", () => {
    const options = { ...NEWS, parse: JSON.parse, key: (/** @type {any} */ { id }) => id };
    socket.follow("news", options, changed);
    last().subscribes("news");
    for (const [id, state] of [[1, "new"], [2, "new"], [1, "paid"]]) says(JSON.stringify({ id, state }));
    assert.deepEqual(texts(), [{ id: 1, state: "paid" }, { id: 2, state: "new" }]);
  });

  test("begin with what load returns, and again when messages were lost", async () => {
    let number = 0;
    /** @type {any} */
    const load = async (/** @type {any} */ _, /** @type {any} */ history) => {
      number += 1;
      const { messages } = await history({ limit: 5 });
      return [{ data: `state ${number}` }, ...messages];
    };
    /** @type {string[]} */
    const arrived = [];
    socket.follow("news", { ...NEWS, load, onMessage: ({ data }) => arrived.push(String(data)) }, changed);
    last().subscribes("news");
    await settled();
    says("retained", { kept: true });
    says("live", { position: "1.2.b" });
    const answer = (/** @type {any[]} */ messages) =>
      last().says("history", { id: asked("history").at(-1).id, facility: "news", messages, before: null });
    answer([{ audience: "user", data: "earlier", position: "1.1.a" }]);
    await settled();
    assert.deepEqual(texts(), ["state 1", "earlier", "live"]);
    assert.deepEqual(arrived, ["live"]);
    last().says("error", { facility: "news", code: "lost", reason: "Gone." });
    assert.equal(socket.read("news").loss?.reason, "Gone.");
    await settled();
    answer([]);
    await settled();
    assert.deepEqual([texts(), socket.read("news").loss], [["state 2"], null]);
  });

  test("are not repeated by what Redis retains", () => {
    socket.follow("news", NEWS, changed);
    last().subscribes("news");
    says("a");
    says("a", { kept: true });
    says("b", { kept: true });
    assert.deepEqual(texts(), ["a", "b"]);
  });

  test("that cannot be parsed are dropped, and the error is kept", (context) => {
    const error = context.mock.method(console, "error", () => {});
    socket.follow("news", { ...NEWS, parse: JSON.parse }, changed);
    last().subscribes("news");
    says("{");
    assert.deepEqual(texts(), []);
    assert.ok(socket.read("news").error instanceof SyntaxError);
    assert.equal(error.mock.calls[0].arguments[0], "wsloop: news:");
  });
});

describe("the socket", () => {
  test("publishes for a component that has just come, and for nobody else", async () => {
    socket.follow("news", { publish: ["user"] }, changed);
    last().subscribes("news");
    const published = socket.publish("news", "hello");
    await settled();
    const [{ id, data }] = asked("publish");
    assert.equal(data, "hello");
    last().says("ack", { id, facility: "news" });
    await published;
    await assert.rejects(socket.publish("other", "hello"), { name: "RequestError", code: "disconnected" });
    await assert.rejects(socket.history("other"), { code: "disconnected" });
  });

  test("tells its state until nobody listens", () => {
    /** @type {string[]} */
    const states = [];
    const stop = socket.onState(() => states.push(socket.state.name));
    last().ends(1006);
    stop();
    clock.tick(60_000);
    assert.deepEqual(states, ["reconnecting"]);
  });

  test("closes with all subscriptions", () => {
    const { close } = socket.follow("news", NEWS, changed);
    socket.close();
    assert.equal(socket.state.name, "offline");
    assert.equal(last().readyState, 2);
    close();
    clock.tick(5000);
    assert.equal(clock.timers.size, 0);
  });

  test("asks why it is refused, once, and only before its first success", async (context) => {
    const error = context.mock.method(console, "error", () => {});
    context.mock.method(console, "warn", () => {});
    const fetch = context.mock.method(globalThis, "fetch", async () => {
      return new Response("Pages of another site may not.", { status: 403, headers: { "Content-Type": "text/plain" } });
    });
    const fails = () => {
      last().ends(1006);
      clock.tick(/** @type {any} */ (socket.state).seconds * 1000);
    };
    for (let attempt = 1; attempt <= 3; attempt += 1) fails();
    assert.equal(fetch.mock.callCount(), 0);
    socket.close();
    socket = openShared("ws://site.test/ws/", { WebSocket: /** @type {any} */ (PageSocket), random: () => 0.5 });
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      fails();
      assert.equal(fetch.mock.callCount(), attempt > 1 ? 1 : 0);
    }
    await settled();
    assert.equal(String(/** @type {any} */ (fetch.mock.calls[0]).arguments[0]), "http://site.test/ws/");
    assert.deepEqual(error.mock.calls[0].arguments, [
      "wsloop: the server refuses http://site.test/ws/ (403): Pages of another site may not.",
    ]);
  });
});

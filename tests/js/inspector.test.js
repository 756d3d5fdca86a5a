import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { explain, OTHER_CODES, problemOfClose } from "../../static/js/inspector/close-codes.js";
import {
  byteLength,
  clock,
  counted,
  describe as describeMessage,
  duration,
  hexDump,
  prettyJson,
  roundTrip,
  size,
} from "../../static/js/inspector/format.js";
import { Journal, matches } from "../../static/js/inspector/journal.js";
import { jsonError } from "../../static/js/inspector/json-error.js";
import { bars, howToMeasure, MOST_DRAWN, RoundTrips } from "../../static/js/inspector/round-trip.js";
import { InspectedSocket } from "../../static/js/inspector/socket.js";
import {
  fromQuery,
  parsePasted,
  problemOf,
  protocolNames,
  socketUrl,
  toQuery,
} from "../../static/js/inspector/target.js";
import { CLOSE_CODES } from "../../wsloop/static/wsloop/close-codes.js";

const ROOT = "/ws/";
const PAGE = "https://example.com/inspector/?path=news";
const KNOWN = ["subscribe-broadcast", "subscribe-user", "publish-user", "echo"];

/** @param {Partial<import("../../static/js/inspector/target.js").Target>} more */
function target(more = {}) {
  return { path: "news", parameters: [], more: "", protocols: [], ...more };
}

/** Asserts that it is a text, and matches. @param {string | null | undefined} text @param {RegExp} pattern */
function says(text, pattern, message = "") {
  assert.match(String(text), pattern, message);
}

describe("close codes", () => {
  test("all of RFC 6455 and its registry are explained, and none twice", () => {
    for (let code = 1000; code <= 1015; code += 1) {
      assert.notEqual(code in CLOSE_CODES, code in OTHER_CODES, String(code));
      assert.ok(explain(code).meaning && explain(code).action);
    }
  });

  test("those that nobody has listed are explained by their range", () => {
    assert.match(explain(4321).meaning, /private/);
    assert.match(explain(3000).meaning, /library/);
    assert.match(explain(2000).meaning, /not assigned/);
  });

  test("what a script may close with", () => {
    for (const code of ["", "1000", "3000", "4999"]) assert.equal(problemOfClose(code, ""), null, code);
    for (const code of ["999", "1001", "1006", "2999", "5000", "1e3", "-1", "one"]) {
      says(problemOfClose(code, ""), /1000, or with 3000 to 4999/, code);
    }
    assert.equal(problemOfClose("1000", "x".repeat(123)), null);
    says(problemOfClose("1000", "ü".repeat(62)), /124 bytes/);
    says(problemOfClose("", "why"), /needs a code/);
  });
});

describe("the target", () => {
  test("becomes the URL of a socket", () => {
    assert.equal(socketUrl(target(), ROOT, PAGE), "wss://example.com/ws/news");
    assert.equal(socketUrl(target(), ROOT, "http://localhost:8000/"), "ws://localhost:8000/ws/news");
    const all = target({ path: "rooms/grün?#%", parameters: ["subscribe-user", "echo"], more: "?room=7&token=a#b" });
    assert.equal(
      socketUrl(all, ROOT, PAGE),
      "wss://example.com/ws/rooms/gr%C3%BCn%3F%23%25?subscribe-user&echo&room=7&token=a%23b",
    );
  });

  test("is refused where a browser would refuse it, or change it", () => {
    assert.equal(problemOf(target({ protocols: ["wsloop.v1", "other"] })), null);
    says(problemOf(target({ path: "" }))?.text, /Choose a path/);
    assert.equal(problemOf(target({ path: "../admin/" }))?.field, "path");
    assert.equal(problemOf(target({ path: "rooms/./x" }))?.field, "path");
    says(problemOf(target({ protocols: ["wsloop.v1", "WSLOOP.v1"] }))?.text, /twice/);
    says(problemOf(target({ protocols: ["v1/json"] }))?.text, /cannot be the name/);
  });

  test("names of subprotocols are separated by commas or spaces", () => {
    assert.deepEqual(protocolNames(" one,two  three, "), ["one", "two", "three"]);
  });

  test("is read from what was pasted", () => {
    const pasted = (/** @type {string} */ text) => parsePasted(text, ROOT, PAGE, KNOWN);
    const problem = (/** @type {string} */ text) => {
      const result = pasted(text);
      return result && "problem" in result ? result.problem : null;
    };
    assert.equal(pasted("news"), null);
    assert.equal(pasted("rooms/lobby/"), null);
    const expected = { path: "gr ün", parameters: ["subscribe-user", "echo"], more: "room=7" };
    assert.deepEqual(pasted("wss://example.com/ws/gr%20%C3%BCn?echo&room=7&subscribe-user="), expected);
    assert.deepEqual(pasted("/ws/gr%20%C3%BCn?subscribe-user&echo&room=7"), expected);
    assert.deepEqual(pasted("gr%20%C3%BCn?subscribe-user&echo&room=7"), expected);
    says(problem("wss://example.org/ws/news"), /not of example.org/);
    says(problem("https://example.com/form/"), /begin with \/ws\//);
    says(problem("wss://"), /not a valid URL/);
  });

  test("goes into the address of the page and comes back", () => {
    const all = target({
      path: "rooms/gr ün&?/",
      parameters: ["subscribe-user", "echo"],
      more: "room=7&who=a b",
      protocols: ["one", "two"],
    });
    assert.deepEqual(fromQuery(toQuery(all), KNOWN), all);
    assert.equal(toQuery(target({ path: "a/b" })), "path=a/b");
    assert.equal(fromQuery("?subscribe-user", KNOWN), null);
    assert.deepEqual(fromQuery("?path=", KNOWN), target({ path: "" }));
  });

  test("signs nobody in who gets the address", () => {
    const secret = target({
      more: "room=7&token=s3cret&Resume=s3cret&?token=s3cret&%74oken=s3cret&token=",
      protocols: ["wsloop.v1", "wsloop.token.s3cret", "WSLOOP.Token.s3cret"],
    });
    assert.equal(toQuery(secret), "path=news&protocol=wsloop.v1&more=room%3D7");
  });
});

describe("words for the log", () => {
  test("sizes and numbers", () => {
    assert.deepEqual([0, 1023, 1024, 1536, 65536, 3 * 2 ** 20, 2 ** 41].map(size), [
      "0 B",
      "1023 B",
      "1 KiB",
      "1.5 KiB",
      "64 KiB",
      "3 MiB",
      "2048 GiB",
    ]);
    assert.equal(counted(1, "entry", "entries"), "1 entry");
    assert.equal(counted(0, "message"), "0 messages");
    assert.equal(byteLength("ü€😀"), 9);
  });

  test("times", () => {
    assert.equal(clock(new Date(2026, 0, 1, 9, 5, 1, 42)), "09:05:01.042");
    assert.deepEqual([0, 4_290, 59_999, 60_000, 187_000, 3_723_000].map(duration), [
      "0.0 s",
      "4.2 s",
      "59.9 s",
      "1:00",
      "3:07",
      "1:02:03",
    ]);
    assert.deepEqual([0.4242, 3.14, 120.4].map(roundTrip), ["0.42 ms", "3.1 ms", "120 ms"]);
  });

  test("JSON is laid out as JSON.stringify does", () => {
    const values = [
      { a: [1, 2, { b: 'x, {y}: "z" \\' }], c: {}, d: [], e: null, "": [[]] },
      [],
      {},
      [true, false, -1.5],
    ];
    for (const value of values) {
      assert.equal(prettyJson(JSON.stringify(value)), JSON.stringify(value, null, 2));
      assert.equal(prettyJson(` ${JSON.stringify(value, null, 7)}\n`), JSON.stringify(value, null, 2));
    }
  });

  test("numbers that a script cannot hold stay as they came", () => {
    assert.equal(prettyJson('{"id":12345678901234567890,"x":1.0}'), '{\n  "id": 12345678901234567890,\n  "x": 1.0\n}');
  });

  test("what is no structure is shown as it came", () => {
    for (const text of ["Hello", "7", '"text"', "", "{", "{'a': 1}", "[1,]"]) {
      assert.equal(prettyJson(text), null, text);
      assert.deepEqual(describeMessage(text), { kind: "text", title: "" }, text);
    }
  });

  test("what tells what it is gets that as its title", () => {
    const titled = (/** @type {object} */ content) => describeMessage(JSON.stringify(content)).title;
    assert.equal(titled({ type: "message", audience: "user", data: "x" }), "message, user");
    assert.equal(titled({ type: "pong" }), "pong");
    assert.equal(titled({ type: 7 }), "");
    assert.equal(titled({ type: "x".repeat(40) }), "");
    assert.deepEqual(describeMessage(" [1]"), { kind: "json", title: "" });
  });

  test("bytes as a hex dump", () => {
    const bytes = Uint8Array.from([...Array(16).keys(), 0x20, 0x7e, 0x7f, 0xff]);
    assert.equal(
      hexDump(bytes),
      "000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................\n" +
        "000010  20 7e 7f ff                                       ~..",
    );
    assert.deepEqual(hexDump(bytes, 8).split("\n")[2], "000010  20 7e 7f ff               ~..");
    assert.equal(hexDump(new Uint8Array()), "");
  });
});

describe("where JSON is wrong", () => {
  const cases = /** @type {[string, number, number, RegExp][]} */ ([
    ["", 1, 1, /ends where a value/],
    ["  \n ", 2, 2, /ends where a value/],
    ['{"a": }', 1, 7, /a value expected, not “}”/],
    ['{"a" 1}', 1, 6, /a colon expected/],
    ['{"a": 1 "b": 2}', 1, 9, /a comma or } expected/],
    ["{a: 1}", 1, 2, /a name in quotation marks/],
    ['{"a": 1,}', 1, 9, /a name in quotation marks expected/],
    ["[1, 2,, 3]", 1, 7, /a value expected, not “,”/],
    ["[1, 2,]", 1, 7, /a value expected/],
    ["[1\n 2]", 2, 2, /a comma or ] expected/],
    ["[1", 1, 3, /ends where a comma or ]/],
    ['{\n  "a": tru\n}', 2, 8, /a value expected, not “t”/],
    ["01", 1, 1, /a value expected/],
    ["1 2", 1, 3, /the end expected/],
    ['"abc', 1, 5, /no closing quotation mark/],
    ['"a\\x"', 1, 3, /does not have this escape/],
    ['"a\nb"', 1, 3, /must be escaped/],
    ["[😀]", 1, 2, /not “😀”/],
  ]);
  for (const [text, line, column, problem] of cases) {
    test(JSON.stringify(text), () => {
      const error = jsonError(text);
      assert.deepEqual([error?.line, error?.column], [line, column]);
      says(error?.problem, problem);
    });
  }

  test("what is JSON has no error", () => {
    for (const text of [
      "0",
      "-1.5e+3",
      '"\\u00e4\\n"',
      "[]",
      "{}",
      ' {"a": [true, null, {"b": "c"}]} ',
      "[".repeat(999) + "]".repeat(999),
    ]) {
      assert.equal(jsonError(text), null, text);
    }
  });

  test("wherever a character is taken away, it is found near there", () => {
    const text = '{"a": [1, {"b": "c"}], "d": true}';
    for (let index = 0; index < text.length; index += 1) {
      const broken = text.slice(0, index) + text.slice(index + 1);
      const error = jsonError(broken);
      if (error) assert.ok(error.index <= broken.length && /expected|should be|no /.test(error.problem), broken);
    }
  });
});

describe("the journal", () => {
  /** @param {Partial<import("../../static/js/inspector/journal.js").Entry>} more */
  const entry = (more = {}) => ({
    number: 0,
    socket: 1,
    time: new Date(0),
    direction: /** @type {const} */ ("in"),
    kind: "text",
    ping: false,
    bytes: 1,
    ...more,
  });

  test("keeps the newest entries and counts the others", () => {
    const journal = new Journal(3, 1000);
    for (const text of "abcde") journal.add(entry({ text }));
    assert.deepEqual(
      journal.entries.map(({ number, text }) => [number, text]),
      [
        [3, "c"],
        [4, "d"],
        [5, "e"],
      ],
    );
    assert.equal(journal.dropped, 2);
  });

  test("keeps so many bytes, and the newest entry however large it is", () => {
    const journal = new Journal(100, 10);
    for (const bytes of [4, 4, 4]) journal.add(entry({ bytes }));
    assert.equal(journal.entries.length, 2);
    journal.add(entry({ bytes: 11 }));
    assert.deepEqual(
      journal.entries.map(({ bytes }) => bytes),
      [11],
    );
    journal.add(entry({ bytes: null }));
    assert.deepEqual([journal.entries.length, journal.dropped], [1, 4]);
  });

  test("begins anew when it is cleared, but for the numbers", () => {
    const journal = new Journal(1, 1000);
    journal.add(entry());
    journal.add(entry());
    journal.clear();
    assert.deepEqual([journal.entries, journal.dropped], [[], 0]);
    assert.equal(journal.add(entry()).number, 3);
  });

  test("is filtered by kind and words", () => {
    const shown = { in: true, out: false, event: true, ping: true };
    const filter = (words = "") => ({ words, shown });
    assert.ok(matches(entry(), filter()));
    assert.ok(!matches(entry({ direction: "out" }), filter()));
    assert.ok(matches(entry({ direction: "out", ping: true }), filter()));
    assert.ok(!matches(entry({ ping: true }), { words: "", shown: { ...shown, ping: false } }));
    assert.ok(matches(entry({ text: "Hello World" }), filter("world hello")));
    assert.ok(!matches(entry({ text: "Hello" }), filter("hello world")));
    assert.ok(matches(entry({ direction: "event", facts: [["meaning", "signed out"]] }), filter("signed")));
  });
});

describe("round trips", () => {
  /** A clock that the test moves. */
  function measuring() {
    const state = { now: 100 };
    return { state, trips: new RoundTrips(() => state.now, "tag") };
  }

  test("are measured by an answer with the same id, whatever it is else", () => {
    const { state, trips } = measuring();
    const { id, type } = JSON.parse(trips.probe());
    assert.equal(type, "ping"); // which wsloop.v1 does not know: it answers, and publishes nothing
    state.now += 8;
    assert.equal(trips.answered(`not JSON, but it speaks of ${id}`), null);
    assert.equal(trips.answered(JSON.stringify({ type: "error", id: "tag-0" })), null);
    assert.equal(trips.answered(JSON.stringify({ type: "message", data: `{"id": "${id}"}` })), null);
    assert.equal(trips.answered(JSON.stringify({ type: "error", code: "frame", id })), 8);
    assert.equal(trips.answered(JSON.stringify({ type: "error", code: "frame", id })), null);
    assert.deepEqual([trips.last, trips.min, trips.max, trips.average, trips.count], [8, 8, 8, 8, 1]);
  });

  test("least, greatest and average are of all, and the latest are kept", () => {
    const { state, trips } = measuring();
    for (let number = 1; number <= 40; number += 1) {
      const probe = trips.probe();
      state.now += number;
      trips.answered(probe);
    }
    assert.deepEqual([trips.last, trips.min, trips.max, trips.average, trips.count], [40, 1, 40, 20.5, 40]);
    assert.deepEqual([trips.latest.length, trips.latest[0]], [MOST_DRAWN, 11]);
  });

  test("an answer that does not come is said, and does not count", () => {
    const { state, trips } = measuring();
    assert.equal(trips.expired(), false);
    const probe = trips.probe();
    state.now += 4999;
    assert.deepEqual([trips.expired(), trips.waiting], [false, true]);
    state.now += 1;
    assert.deepEqual([trips.expired(), trips.waiting, trips.unanswered], [true, false, 1]);
    assert.equal(trips.answered(probe), null);
    assert.deepEqual([trips.latest, trips.last, trips.count], [[null], null, 0]);
  });

  test("are drawn from the right, the greatest as high as there is room", () => {
    const drawn = bars([2, 4, null], { width: 300, height: 40 });
    assert.deepEqual(
      drawn.map(({ x, height, answered }) => [x, height, answered]),
      [
        [270, 20, true],
        [280, 40, true],
        [290, 40, false],
      ],
    );
    assert.deepEqual(bars([], { width: 300, height: 40 }), []);
  });

  test("where they cannot be measured it is said why", () => {
    assert.ok(howToMeasure({ path: "news", protocol: "wsloop.v1" }).possible);
    assert.ok(howToMeasure({ path: "echo/", protocol: "" }).possible);
    assert.match(howToMeasure({ path: "news", protocol: "" }).text, /Cannot measure this socket/);
    assert.equal(howToMeasure({ path: "random/", protocol: "ws4redis" }).possible, false);
  });
});

describe("the socket", () => {
  const real = globalThis.WebSocket;
  /** @type {InspectedSocket} */
  let socket;
  /** @type {any[][]} */
  let heard;

  /** Stands for the browser's WebSocket; the test says what happens to it. */
  class FakeSocket {
    /** @type {any} */
    static latest;

    readyState = 0;
    bufferedAmount = 0;
    /** @type {any[]} */
    calls = [];

    /** @param {any[]} parameters */
    constructor(...parameters) {
      this.parameters = parameters;
      FakeSocket.latest = this;
    }

    /** @param {any} data */
    send(data) {
      this.calls.push(data);
    }

    /** @param {any[]} parameters */
    close(...parameters) {
      this.calls.push(parameters);
    }

    /** @param {number} state @param {string} handler */
    becomes(state, handler, event = {}) {
      this.readyState = state;
      /** @type {any} */ (this)[handler](event);
    }
  }

  beforeEach(() => {
    globalThis.WebSocket = /** @type {any} */ (FakeSocket);
    heard = [];
    socket = new InspectedSocket(1, target({ protocols: ["wsloop.v1"] }), "wss://example.com/ws/news", {
      opened: () => heard.push(["opened"]),
      received: (_, ...more) => heard.push(["received", ...more]),
      failed: () => heard.push(["failed"]),
      closed: (_, close) => heard.push(["closed", close]),
    });
  });

  afterEach(() => {
    globalThis.WebSocket = real;
  });

  test("tells its states by name, and how long they took", () => {
    const { latest } = FakeSocket;
    assert.deepEqual(latest.parameters, ["wss://example.com/ws/news", ["wsloop.v1"]]);
    assert.deepEqual(
      [socket.state, socket.handshake, socket.duration, socket.isOpen],
      ["CONNECTING", null, null, false],
    );
    latest.becomes(1, "onopen");
    assert.deepEqual([socket.state, socket.isOpen], ["OPEN", true]);
    assert.ok(Number(socket.handshake) >= 0 && Number(socket.duration) >= 0);
    latest.becomes(3, "onclose", { code: 1000, reason: "why", wasClean: true });
    assert.deepEqual([socket.state, socket.duration], ["CLOSED", socket.duration]);
    assert.deepEqual(heard, [["opened"], ["closed", { code: 1000, reason: "why", wasClean: true }]]);
  });

  test("counts messages and bytes in both directions", () => {
    const { latest } = FakeSocket;
    latest.becomes(1, "onopen");
    assert.equal(socket.send("ü"), 2);
    assert.equal(socket.send(Uint8Array.of(1, 2, 3)), 3);
    latest.onmessage({ data: "€" });
    latest.onmessage({ data: Uint8Array.of(1, 2).buffer });
    assert.deepEqual(
      [socket.sent, socket.received],
      [
        { messages: 2, bytes: 5 },
        { messages: 2, bytes: 5 },
      ],
    );
    assert.deepEqual(heard.slice(1), [
      ["received", "€", 3],
      ["received", Uint8Array.of(1, 2), 2],
    ]);
    assert.equal(latest.binaryType, "arraybuffer");
  });

  test("closes with a code, or without one", () => {
    const { latest } = FakeSocket;
    socket.close();
    assert.equal(socket.givenUp, true);
    latest.becomes(1, "onopen");
    socket.close(4321, "why");
    assert.equal(socket.givenUp, false);
    assert.deepEqual(latest.calls, [[], [4321, "why"]]);
  });
});

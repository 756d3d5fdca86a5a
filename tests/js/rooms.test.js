import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { arrange } from "../../static/js/rooms/arrange.js";
import { draftOf } from "../../static/js/rooms/draft.js";
import { typing } from "../../static/js/rooms/people.js";
import { counterText, face, guestsText, lengthOf, newKey, newText, typingText } from "../../static/js/rooms/words.js";
import { Clock } from "./clock.js";

describe("how messages stand below each other", () => {
  const day = new Date(2026, 0, 5, 12, 0, 0);
  /** @param {number} number @param {string} author @param {number} minutes */
  const said = (number, author, minutes) => ({ number, author, sent: new Date(day.getTime() + minutes * 60_000) });
  /** @param {import("../../static/js/rooms/arrange.js").Said[]} messages @param {number | null} newFrom */
  const words = (messages, newFrom = null) =>
    arrange(messages, newFrom).map(({ newDay, isNew, continued }) =>
      [newDay && "day", isNew && "new", continued && "continued"].filter(Boolean).join(" "),
    );

  test("messages of one author within five minutes stand below one name", () => {
    const messages = [
      said(1, "john", 0),
      said(2, "john", 4),
      said(3, "john", 9),
      said(4, "mary", 10),
      said(5, "john", 11),
    ];
    assert.deepEqual(words(messages), ["day", "continued", "", "", ""]);
  });

  test("a day begins with its date, and with a name", () => {
    assert.deepEqual(words([said(1, "john", 0), said(2, "john", 719), said(3, "john", 721)]), ["day", "", "day"]);
  });

  test("the first new message is marked, and nothing else", () => {
    const messages = [said(3, "mary", 0), said(4, "mary", 0), said(5, "mary", 0)];
    assert.deepEqual(words(messages, 4), ["day", "new", "continued"]);
    assert.deepEqual(words(messages, 6), ["day", "continued", "continued"]);
  });

  test("where the first new message was deleted, or is not loaded, the next one is marked", () => {
    assert.deepEqual(words([said(3, "mary", 0), said(5, "john", 0)], 4), ["day", "new"]);
    assert.deepEqual(words([said(8, "mary", 0), said(9, "john", 0)], 4), ["day new", ""]);
  });

  test("nothing is said", () => assert.deepEqual(arrange([], 1), []));
});

describe("what was not sent", () => {
  /** What a browser keeps for a tab. */
  function tab() {
    /** @type {Map<string, string>} */
    const kept = new Map();
    const storage = /** @type {any} */ ({
      getItem: (/** @type {string} */ key) => kept.get(key) ?? null,
      setItem: (/** @type {string} */ key, /** @type {string} */ text) => kept.set(key, text),
      removeItem: (/** @type {string} */ key) => kept.delete(key),
    });
    return { storage, kept };
  }

  test("is kept for one user in one room, until it is sent", () => {
    const { storage, kept } = tab();
    const [draft, sameAgain, elsewhere, another] = ["john in /a/", "john in /a/", "john in /b/", "mary in /a/"].map(
      (whose) => draftOf(whose, () => storage),
    );
    assert.equal(draft.get(), "");
    draft.put("not sent");
    assert.deepEqual([sameAgain.get(), elsewhere.get(), another.get()], ["not sent", "", ""]);
    draft.put("");
    assert.deepEqual([sameAgain.get(), kept.size], ["", 0]);
  });

  test("is not kept where the user forbids it, and nothing fails", () => {
    const draft = draftOf("john", () => {
      throw new Error("SecurityError");
    });
    draft.put("not sent");
    assert.equal(draft.get(), "");
  });
});

describe("who is typing", () => {
  /** @type {Clock} */
  let clock;
  /** @type {string[][]} */
  let shown;
  /** @type {ReturnType<typeof typing>} */
  let typists;

  beforeEach(() => {
    clock = new Clock();
    clock.install();
    shown = [];
    typists = typing((names) => shown.push(names));
  });

  afterEach(() => clock.restore());

  test("somebody types until some time has passed since it was told last", () => {
    typists.start("john");
    clock.tick(5999);
    typists.start("john");
    clock.tick(5999);
    assert.deepEqual(shown, [["john"]]);
    clock.tick(1);
    assert.deepEqual(shown, [["john"], []]);
    assert.equal(clock.timers.size, 0);
  });

  test("a message ends it", () => {
    typists.start("john");
    typists.start("mary");
    typists.stop("john");
    typists.stop("nobody");
    assert.deepEqual(shown, [["john"], ["john", "mary"], ["mary"]]);
  });

  test("nobody is known to type when the line breaks", () => {
    typists.start("john");
    typists.start("mary");
    typists.clear();
    assert.deepEqual(shown.at(-1), []);
    assert.equal(clock.timers.size, 0);
  });
});

describe("words", () => {
  test("who is typing", () => {
    assert.equal(typingText([]), "");
    assert.equal(typingText(["john"]), "john is typing …");
    assert.equal(typingText(["john", "mary"]), "john and mary are typing …");
    assert.equal(typingText(["ann", "john", "mary"]), "ann, john and mary are typing …");
    assert.equal(typingText(["a", "b", "c", "d"]), "Several people are typing …");
  });

  test("numbers", () => {
    assert.deepEqual([1, 2].map(newText), ["1 new message", "2 new messages"]);
    assert.deepEqual([0, 1, 2].map(guestsText), ["", "1 guest", "2 guests"]);
  });

  test("how many characters are left is told near the bound", () => {
    assert.deepEqual(
      [0, 1799, 1800, 2000, 2001].map((length) => counterText(length, 2000)),
      ["", "", "200 left", "0 left", "1 too many"],
    );
  });

  test("characters are counted as the server counts them", () => {
    assert.deepEqual(["", "  \n ", " abc ", "🙂🙂", "a\nb"].map(lengthOf), [0, 0, 3, 2, 3]);
  });

  test("a face is the same as the server's", () => {
    // face() of chat/rooms/views.py gives these; tests/chat/rooms/test_rooms.py has the same list.
    assert.deepEqual(face("john"), { initial: "J", tone: 3 });
    assert.deepEqual(face("mary"), { initial: "M", tone: 1 });
    assert.deepEqual(face("émile"), { initial: "É", tone: 0 });
    assert.deepEqual(face("🙂"), { initial: "🙂", tone: 2 });
    assert.deepEqual(face(""), { initial: "", tone: 0 });
  });

  test("keys are UUIDs, and never the same", () => {
    const keys = new Set(Array.from({ length: 100 }, newKey));
    assert.equal(keys.size, 100);
    for (const key of keys) assert.match(key, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
});

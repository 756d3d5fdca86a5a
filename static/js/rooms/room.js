/**
 * The page of a room: connects it to its consumer. The URL of each attempt names the last message that the page shows,
 * and the server sends the ones after it. chat/rooms/consumer.py describes the messages.
 */

import { SIGNED_OUT, connectConsumer } from "../../wsloop/wsloop.js";
import * as account from "../account.js";
import { stateOf } from "../state.js";
import { composerOf } from "./composer.js";
import { draftOf } from "./draft.js";
import { feedOf } from "./feed.js";
import { peopleOf } from "./people.js";

/** @typedef {import("./composer.js").Draft} Draft */
/** @typedef {import("./composer.js").Errors} Errors */

const LINE_PATIENCE = 75_000; // milliseconds; timers of a page in the background run once a minute only
const PING_INTERVAL = 30_000; // milliseconds
const READ_INTERVAL = 2000; // milliseconds between two notices of the last message that the user has read
const POST_PATIENCE = 10_000; // milliseconds to wait for a reply over HTTP
const ANSWER_PATIENCE = 5000; // milliseconds to wait for the answer to a message, until the page uses HTTP instead
const GENERAL = "__all__"; // Django's name for errors that belong to no single field

/** @param {HTMLElement} page */
export function start(page) {
  const { url, me } = page.dataset;
  const lineElement = /** @type {HTMLElement} */ (page.querySelector("[data-line]"));
  const form = /** @type {HTMLFormElement | null} */ (page.querySelector("[data-composer]"));
  const showState = stateOf(lineElement);
  const people = peopleOf(page, me);
  const feed = feedOf(page, me, seen);
  let marked = Number(page.dataset.marked); // the number up to which the server knows that the user has read
  /** @type {ReturnType<typeof setTimeout> | undefined} runs for READ_INTERVAL after each notice */
  let marking;
  /** @type {Map<string, (answer: {errors: Errors | null} | null) => void>} by key of a message that was sent */
  const waiting = new Map();
  let isBroken = false; // whether the connection has broken since it was last open

  addEventListener("pagehide", mark); // before the connection is closed
  const line = connectConsumer(() => `${url}?after=${feed.last}&as=${encodeURIComponent(me ?? "")}`, {
    patience: LINE_PATIENCE,
    onMessage(data) {
      if (typeof data === "string") receive(JSON.parse(data));
    },
    onOpen() {
      for (const note of page.querySelectorAll("[data-no-live]")) /** @type {HTMLElement} */ (note).hidden = true;
      marked = Number(page.dataset.marked); // the last notice may have been lost with the previous connection
      feed.seen();
    },
    onState(state) {
      showState(state);
      if (state.name === "connected") {
        isBroken = false;
        return;
      }
      people.typists.clear();
      if (state.name === "reconnecting") {
        people.lineIsBroken();
        if (isBroken) load(); // an attempt has failed, and the next ones may fail too
        isBroken = true;
      }
      for (const answer of waiting.values()) answer(null);
      if (state.name !== "offline") return;
      people.forget();
      if (state.reason !== SIGNED_OUT) return;
      account.signedOut();
      composer?.disable();
    },
  });
  const composer =
    form &&
    composerOf(form, {
      draft: draftOf(`${me ?? "a guest"} in ${location.pathname}`),
      deliver,
      onSend: ({ key, text }) => feed.pend(key, text),
      onFail: ({ key }) => feed.unpend(key),
      onTyping: () => say({ type: "typing" }),
    });
  lineElement.hidden = false;
  setInterval(() => say({ type: "ping" }), PING_INTERVAL);

  /** @param {object} content @returns {boolean} whether there is a connection */
  function say(content) {
    return line.send(JSON.stringify(content));
  }

  /** @param {any} content */
  function receive(content) {
    switch (content.type) {
      case "messages":
        return show(content.messages);
      case "ack":
        feed.stored(content.key, content.number);
        return waiting.get(content.key)?.({ errors: null });
      case "error":
        return waiting.get(content.key)?.({ errors: content.errors });
      case "who":
        return people.set(content.users, content.anonymous);
      case "presence":
        return people.change(content);
      case "typing":
        return people.typists.start(content.user);
    }
  }

  /** @param {import("./feed.js").Message[]} messages */
  function show(messages) {
    for (const { author, key } of feed.show(messages)) {
      people.typists.stop(author);
      if (author === me && key) composer?.stored(key);
    }
  }

  /** Notifies the server of the last message read: at once, but not for each of many messages. */
  function seen() {
    if (marking === undefined) mark();
  }

  function mark() {
    clearTimeout(marking);
    marking = undefined;
    if (me === undefined || feed.seenTo <= marked || !say({ type: "read", number: feed.seenTo })) return;
    marked = feed.seenTo;
    marking = setTimeout(mark, READ_INTERVAL);
  }

  /**
   * Sends a message over the socket; by HTTP if there is none, or if no answer comes.
   *
   * @param {Draft} draft
   * @returns {Promise<Errors | null>}
   */
  async function deliver({ key, text }) {
    if (say({ type: "message", key, text })) {
      const answer = await answerTo(key);
      if (answer) return answer.errors;
    }
    return post(key, text);
  }

  /** @param {string} key @returns {Promise<{errors: Errors | null} | null>} null: no answer arrived */
  async function answerTo(key) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const answer = await new Promise((resolve) => {
      timer = setTimeout(() => resolve(null), ANSWER_PATIENCE);
      waiting.set(key, resolve);
    });
    clearTimeout(timer);
    waiting.delete(key);
    return answer;
  }

  /** @param {string} key @param {string} text @returns {Promise<Errors | null>} */
  async function post(key, text) {
    /** @param {string} sentence @returns {Errors} */
    const failed = (sentence) => ({ [GENERAL]: [sentence] });
    const body = new URLSearchParams(/** @type {any} */ (new FormData(/** @type {HTMLFormElement} */ (form))));
    body.set("key", key);
    body.set("message", text);
    let response;
    try {
      response = await fetch(location.pathname, {
        method: "POST",
        headers: { Accept: "application/json" },
        body,
        signal: AbortSignal.timeout(POST_PATIENCE),
      });
    } catch {
      return failed("The server cannot be reached. Your message is still here; try again.");
    }
    try {
      const { ok, errors, number } = await response.json();
      if (!ok) return errors;
      feed.stored(key, number);
    } catch {
      return failed(
        response.status === 403
          ? "This page is out of date. Copy your message, reload the page and send it again."
          : `The server did not accept the message (error ${response.status}). It is still here; try again.`,
      );
    }
    await load();
    return null;
  }

  /** Loads new messages over HTTP. */
  async function load() {
    try {
      const address = `${location.pathname}?after=${feed.last}`;
      const response = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
      show((await response.json()).messages);
    } catch {
      // They arrive over the socket when it is open again.
    }
  }
}

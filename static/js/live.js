/**
 * Shows messages as they arrive. An element with `data-live` contains one with `data-socket`, the URL, and a list with
 * `data-feed`, which gets the messages. The server has rendered the retained messages there, and `data-token`: the
 * positions at which the socket starts, so that no message is missed in between. Texts are set as text, never as HTML.
 */

import { SIGNED_OUT, connect } from "../wsloop/wsloop.js";
import { stateOf } from "./state.js";

const MOST_MESSAGES = 100; // shown at a time; a page may stay open for days

/**
 * @param {HTMLElement} live the element with `data-live`; the value "json": messages name their sender
 * @param {() => void} onSignedOut called when the connection has ended with its session
 */
export function start(live, onSignedOut) {
  const line = /** @type {HTMLElement} */ (live.querySelector("[data-socket]"));
  const feed = /** @type {HTMLElement} */ (live.querySelector("[data-feed]"));
  const lost = /** @type {HTMLElement} */ (live.querySelector("[data-lost]"));
  const read = live.dataset.live === "json" ? readNote : readText;
  const showState = stateOf(line);
  for (const time of feed.querySelectorAll("time")) time.textContent = clockTime(new Date(time.dateTime));
  /** @type {Map<string, string>} the last message of each audience */
  const last = new Map();
  for (const { dataset } of items(feed, "[data-kept]")) last.set(String(dataset.audience), String(dataset.kept));
  connect(String(line.dataset.socket), {
    token: line.dataset.token,
    onState(state) {
      if (state.name === "offline" && state.reason === SIGNED_OUT) onSignedOut();
      showState(state);
    },
    onLost() {
      lost.hidden = false;
    },
    onMessage({ audience, data, kept }) {
      const text = typeof data === "string" ? data : `(binary message, ${data.length} bytes)`;
      // Without recovery a socket first gets the last message of each audience, which the page may show already.
      if (kept && last.get(audience) === text) return;
      // A message that was published while the server rendered the page may be in the page, and arrive as well.
      for (const item of items(feed, "[data-fresh]")) {
        if (item.dataset.audience === audience && item.dataset.kept === text) item.remove();
      }
      last.set(audience, text);
      show(feed, audience, read(text));
    },
  });
  /** @type {HTMLElement} */ (live.querySelector("[data-needs-script]")).hidden = false;
}

/** @param {HTMLElement} feed @param {string} selector @returns {NodeListOf<HTMLElement>} */
function items(feed, selector) {
  return feed.querySelectorAll(selector);
}

/** @typedef {{text: string, sender?: string, sent?: Date}} Note */

/** @param {string} text @returns {Note} */
function readText(text) {
  return { text };
}

/** @param {string} data @returns {Note} of the JSON that a view publishes; any other text as it is */
function readNote(data) {
  try {
    const { text, sender, sent } = JSON.parse(data);
    if (typeof text === "string" && typeof sender === "string") return { text, sender, sent: new Date(sent) };
  } catch {
    // A client that may publish to this channel may publish any text.
  }
  return { text: data };
}

/** @param {HTMLElement} feed @param {string} audience @param {Note} note */
function show(feed, audience, { text, sender, sent = new Date() }) {
  const label = make("span", "badge", audience);
  label.dataset.audience = audience;
  const head = make("p", "message-head", "");
  head.append(label, ...(sender ? [make("span", "sender", sender)] : []), make("time", "time", clockTime(sent)));
  const item = make("li", "message", "");
  item.append(head, make("p", "message-text", text));
  feed.prepend(item);
  while (feed.children.length > MOST_MESSAGES) feed.lastElementChild?.remove();
}

/** @param {Date} date @returns {string} */
function clockTime(date) {
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString();
}

/** @param {string} tag @param {string} className @param {string} text @returns {HTMLElement} */
function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

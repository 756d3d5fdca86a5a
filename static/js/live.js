/**
 * Shows on the page what arrives: an element with `data-live` holds one or more elements with `data-socket`, the URLs,
 * and a list with `data-feed`, which gets the messages. Texts are set as text, never as HTML.
 */

import { SIGNED_OUT, connect } from "./notifications.js";

const MOST_MESSAGES = 100; // shown at a time; a page that stays open for days must not grow for days

/** @param {HTMLElement} live the element with `data-live`; its value "json" says that messages tell who wrote them */
export function start(live) {
  const feed = /** @type {HTMLElement} */ (live.querySelector("[data-feed]"));
  const signedOut = /** @type {HTMLElement} */ (live.querySelector("[data-signed-out]"));
  const heartbeat = JSON.parse(live.dataset.heartbeat ?? "null");
  const read = live.dataset.live === "json" ? readNote : readText;
  for (const line of /** @type {NodeListOf<HTMLElement>} */ (live.querySelectorAll("[data-socket]"))) {
    const { socket, audience } = /** @type {{socket: string, audience: string}} */ ({ ...line.dataset });
    const showState = stateOf(line);
    let reopened = false;
    /** @type {string | null} */
    let last = null;
    connect(socket, {
      heartbeat,
      onState(state) {
        reopened ||= state.name === "reconnecting";
        showState(state);
        if (state.name === "offline" && state.reason === SIGNED_OUT) signedOut.hidden = false;
      },
      onMessage(data) {
        const text = typeof data === "string" ? data : `(binary message, ${data.size} bytes)`;
        // A socket that is opened again begins with the last message that was kept, which may be here already.
        const known = reopened && text === last;
        reopened = false;
        last = text;
        if (!known) show(feed, audience, read(text));
      },
    });
  }
  live.hidden = false;
}

/** @typedef {{text: string, sender?: string, sent?: Date}} Note */

/** @param {string} text @returns {Note} */
function readText(text) {
  return { text };
}

/** @param {string} data @returns {Note} what a view published as JSON, or what somebody else published as it is */
function readNote(data) {
  try {
    const { text, sender, sent } = JSON.parse(data);
    if (typeof text === "string") return { text, sender: String(sender), sent: new Date(sent) };
  } catch {
    // Any client that may publish to this channel may publish any text.
  }
  return { text: data };
}

/** @param {HTMLElement} feed @param {string} audience @param {Note} note */
function show(feed, audience, { text, sender, sent = new Date() }) {
  const time = make("time", "time", Number.isNaN(sent.getTime()) ? "" : sent.toLocaleTimeString());
  const label = make("span", "badge", audience);
  label.dataset.audience = audience;
  const head = make("p", "message-head", "");
  head.append(label, ...(sender ? [make("span", "sender", sender)] : []), time);
  const item = make("li", "message", "");
  item.append(head, make("p", "message-text", text));
  feed.prepend(item);
  while (feed.children.length > MOST_MESSAGES) feed.lastElementChild?.remove();
}

/** @param {string} tag @param {string} className @param {string} text @returns {HTMLElement} */
function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * Shows the state of a line, counting down to the next attempt. Screen readers are told the state, not every second.
 *
 * @param {HTMLElement} line
 * @returns {(state: import("./notifications.js").State) => void}
 */
function stateOf(line) {
  const words = /** @type {HTMLElement} */ (line.querySelector("[data-state-text]"));
  const countdown = /** @type {HTMLElement} */ (line.querySelector("[data-countdown]"));
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let ticking;
  return (state) => {
    clearInterval(ticking);
    countdown.textContent = "";
    line.dataset.state = state.name;
    const text = "reason" in state ? `${state.name} (${state.reason})` : state.name;
    if (words.textContent !== text) words.textContent = text;
    if (state.name !== "reconnecting") return;
    let seconds = Math.ceil(state.seconds);
    const tick = () => {
      countdown.textContent = seconds > 0 ? ` in ${seconds} s` : " …";
      seconds -= 1;
    };
    tick();
    ticking = setInterval(tick, 1000);
  };
}

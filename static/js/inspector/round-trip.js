/**
 * Measures round trips. A script cannot send a ping frame, so it sends a message that the server answers: `wsloop.v1`
 * answers each frame with an `id`, here with an `error` of the code `frame`, and publishes nothing; `echo/` returns it.
 */

export const MOST_DRAWN = 30;
const MOST_WAITING = 5_000; // milliseconds to wait for an answer

/**
 * Returns how the socket can be measured, or why it cannot.
 *
 * @param {{path: string, protocol: string}} socket its path, and the negotiated subprotocol
 * @returns {{possible: boolean, text: string}}
 */
export function howToMeasure({ path, protocol }) {
  if (protocol === "wsloop.v1") {
    return {
      possible: true,
      text:
        "A script cannot send ping frames. It sends a message with an id that wsloop.v1 answers with an error, " +
        "without publishing anything. The time is that between send() and onmessage: network, proxies, server and " +
        "browser.",
    };
  }
  if (path === "echo/") {
    return {
      possible: true,
      text:
        "A script cannot send ping frames. It sends a message, and echo/ returns it. The time is that between send() " +
        "and onmessage: network, proxies, server and browser.",
    };
  }
  return {
    possible: false,
    text:
      "Cannot measure this socket: a script cannot send ping frames, and no message is known that this socket " +
      "answers without others seeing it. Connect with the subprotocol wsloop.v1, or to echo/.",
  };
}

export class RoundTrips {
  /** @type {(number | null)[]} milliseconds of the latest ones; null: no answer arrived */
  latest = [];
  count = 0;
  unanswered = 0;
  min = Infinity;
  max = 0;
  #sum = 0;
  #number = 0;
  /** @type {{id: string, sent: number} | null} */
  #waiting = null;

  /**
   * @param {() => number} now returns milliseconds since any fixed time
   * @param {string} tag distinguishes the probes of this socket
   */
  constructor(now, tag) {
    this.now = now;
    this.tag = tag;
  }

  /** @returns {number | null} milliseconds of the latest probe with an answer */
  get last() {
    return this.latest.findLast((each) => each !== null) ?? null;
  }

  get average() {
    return this.#sum / this.count;
  }

  get waiting() {
    return this.#waiting !== null;
  }

  /** @returns {string} the message to send; the measurement starts with the return */
  probe() {
    this.#number += 1;
    const id = `${this.tag}-${this.#number}`;
    this.#waiting = { id, sent: this.now() };
    return JSON.stringify({ type: "ping", id });
  }

  /** @param {string} text a message @returns {number | null} milliseconds, if it answers the probe */
  answered(text) {
    if (!this.#waiting || !text.includes(this.#waiting.id)) return null;
    const milliseconds = this.now() - this.#waiting.sent;
    if (idOf(text) !== this.#waiting.id) return null;
    this.#waiting = null;
    this.count += 1;
    this.#sum += milliseconds;
    this.min = Math.min(this.min, milliseconds);
    this.max = Math.max(this.max, milliseconds);
    this.#remember(milliseconds);
    return milliseconds;
  }

  /** @returns {boolean} whether the probe has waited too long; its measurement ends then */
  expired() {
    if (!this.#waiting || this.now() - this.#waiting.sent < MOST_WAITING) return false;
    this.#waiting = null;
    this.unanswered += 1;
    this.#remember(null);
    return true;
  }

  /** @param {number | null} milliseconds */
  #remember(milliseconds) {
    this.latest.push(milliseconds);
    if (this.latest.length > MOST_DRAWN) this.latest.shift();
  }
}

/** @param {string} text @returns {unknown} */
function idOf(text) {
  try {
    return JSON.parse(text).id;
  } catch {
    return undefined; // a text that only contains the id
  }
}

/**
 * @param {(number | null)[]} latest
 * @param {{width: number, height: number}} area
 * @returns {{x: number, y: number, width: number, height: number, answered: boolean}[]} bars, the newest on the right
 */
export function bars(latest, { width, height }) {
  const most = Math.max(...latest.map((each) => each ?? 0), Number.MIN_VALUE);
  const step = width / MOST_DRAWN;
  return latest.map((each, index) => {
    const tall = each === null ? height : Math.max((each / most) * height, 1);
    return {
      x: width - (latest.length - index) * step,
      y: height - tall,
      width: step - 2,
      height: tall,
      answered: each !== null,
    };
  });
}

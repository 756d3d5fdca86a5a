/**
 * Records the messages that the page has sent to itself, and what was measured on their way. Knows neither the page nor
 * the clock: times are milliseconds since any fixed time, by one clock.
 */

const MOST_TRIPS = 40; // kept for the plot
const MOST_WAITING = 1000; // messages on their way; older ones have not arrived, and will not

/** @typedef {{view: number, redis: number}} ServerTimes milliseconds by the clock of the server; none is in another */
/** @typedef {{number: number, total: number, server?: ServerTimes}} Trip a message that was never waiting for a line */
/** @typedef {{number: number, sent: number, isAway: boolean, server?: ServerTimes}} Waiting */
/**
 * @typedef {object} Arrival
 * @property {number | null} number of the message, from 1; null: another window has sent it
 * @property {number | null} total milliseconds from sending to arrival; null if another window has sent it
 * @property {boolean} recovered whether it was published while the page was not connected
 */

export class Journeys {
  /** @type {Trip[]} the latest, the newest last, without recovered messages */
  trips = [];
  #count = 0;
  /** @type {Map<string, Waiting>} by id, in the order of sending */
  #waiting = new Map();
  /** @type {Map<string, Trip>} that have arrived before the answer of the view */
  #unanswered = new Map();

  /** @returns {number} of messages sent without a connection that have not arrived yet */
  get missed() {
    return [...this.#waiting.values()].filter(({ isAway }) => isAway).length;
  }

  /**
   * @param {string} id
   * @param {number} now
   * @param {boolean} isAway whether the page is not connected
   */
  sent(id, now, isAway) {
    this.#count += 1;
    this.#waiting.set(id, { number: this.#count, sent: now, isAway });
    dropOldest(this.#waiting, MOST_WAITING);
  }

  /** The view has answered. @param {string} id @param {ServerTimes} server */
  answered(id, server) {
    const message = this.#waiting.get(id) ?? this.#unanswered.get(id);
    if (message) message.server = server;
    this.#unanswered.delete(id);
  }

  /** The view has not published it. @param {string} id */
  failed(id) {
    this.#waiting.delete(id);
  }

  /** The connection is broken: what has not arrived yet can only be recovered. */
  away() {
    for (const message of this.#waiting.values()) message.isAway = true;
  }

  /** Nothing that was missed will arrive. @returns {number} of these messages */
  giveUp() {
    const lost = this.missed;
    for (const [id, { isAway }] of this.#waiting) if (isAway) this.#waiting.delete(id);
    return lost;
  }

  /** @param {string} id @param {number} now @returns {Arrival} */
  arrived(id, now) {
    const message = this.#waiting.get(id);
    // Messages arrive in order: what arrives before one that was missed was missed as well.
    if (!message) return { number: null, total: null, recovered: this.missed > 0 };
    this.#waiting.delete(id);
    const { number, sent, isAway, server } = message;
    const total = now - sent;
    if (!isAway) {
      const trip = { number, total, ...(server && { server }) };
      if (!server) this.#unanswered.set(id, trip);
      dropOldest(this.#unanswered, MOST_WAITING);
      this.trips = [...this.trips, trip].slice(-MOST_TRIPS);
    }
    return { number, total, recovered: isAway };
  }
}

/** @param {Map<string, unknown>} map @param {number} most */
function dropOldest(map, most) {
  if (map.size > most) map.delete(/** @type {string} */ (map.keys().next().value));
}

/**
 * The parts of a round trip, which add up to it. The answer of the view may be late: then only the total is known.
 *
 * @param {Trip} trip
 * @returns {{view: number, redis: number, rest: number} | null}
 */
export function partsOf({ total, server }) {
  if (!server) return null;
  // The message may overtake the view, which still waits for the answer of Redis.
  return { ...server, rest: Math.max(0, total - server.view - server.redis) };
}

/** @param {number[]} numbers at least one @returns {number} */
export function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Returns where an axis ends: 1, 2 or 5 times a power of ten. @param {number} most @returns {number} */
export function axisEnd(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return power * ([1, 2, 5].find((each) => each * power >= most) ?? 10);
}

/**
 * Works out what the page shows from two snapshots of all workers: sums, rates and percentiles. Knows neither the page nor
 * the clock. Counters are compared worker by worker, because a worker that is new begins at 0, and one that has ended is
 * missing.
 */

export const DELIVERY_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
export const DELAY_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
export const HANDSHAKE_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** @typedef {[string, string, string, number]} Row dialect, facility, audiences and a number */
/**
 * @typedef {object} Slow
 * @property {string | null} [name]
 * @property {string | null} [address]
 * @property {string[]} facilities
 * @property {string[]} audiences
 * @property {string} place
 * @property {string} dialect
 * @property {number} queued_bytes
 * @property {number} worker
 * @property {string} machine
 */
/**
 * @typedef {object} Worker
 * @property {string} machine
 * @property {number} worker
 * @property {number} pid
 * @property {number} time seconds since the epoch
 * @property {number} started
 * @property {number} cpu seconds
 * @property {number} [memory] bytes
 * @property {number} messages_in
 * @property {number} messages_out
 * @property {number} bytes_in
 * @property {number} bytes_out
 * @property {number} queued_bytes
 * @property {number} slow_sockets
 * @property {number} redis_up
 * @property {number} [redis_seconds]
 * @property {Row[]} sockets
 * @property {Row[]} subscriptions
 * @property {number[]} delivery
 * @property {number[]} loop_delay
 * @property {Record<string, number[]>} handshakes
 * @property {Record<string, number>} closes
 * @property {Record<string, number>} lost
 * @property {Record<string, number>} recoveries
 * @property {Record<string, number>} bounds_reached
 * @property {Record<string, number>} blocked_seconds
 * @property {[string, number, number][]} busiest facility, messages and deliveries
 * @property {Slow[]} slowest
 */
/** @typedef {{time: number, workers: Worker[], missing: number, redis: Record<string, string | number>}} Snapshot */

/** @param {Worker} worker @returns {string} */
export function keyOf({ machine, worker, pid }) {
  return `${machine} ${worker} ${pid}`;
}

/** @param {Iterable<number>} values @returns {number} */
export function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** @param {Worker} worker @returns {number} of open sockets */
export function socketsOf(worker) {
  return sum(worker.sockets.map((row) => row[3]));
}

/**
 * Returns the numbers of each worker, from one snapshot to the next.
 *
 * @param {Snapshot | null} before
 * @param {Snapshot} after
 * @returns {{worker: Worker, before: Worker, seconds: number}[]} of the workers that are in both
 */
export function pairs(before, after) {
  const known = new Map(before?.workers.map((worker) => [keyOf(worker), worker]));
  return after.workers.flatMap((worker) => {
    const earlier = known.get(keyOf(worker));
    const seconds = earlier ? worker.time - earlier.time : 0;
    return earlier && seconds > 0 ? [{ worker, before: earlier, seconds }] : [];
  });
}

/**
 * @param {ReturnType<typeof pairs>} both
 * @param {"messages_in" | "messages_out" | "bytes_in" | "bytes_out" | "cpu"} name
 * @returns {number} a second, of all workers
 */
export function rate(both, name) {
  return sum(both.map(({ worker, before, seconds }) => Math.max(0, worker[name] - before[name]) / seconds));
}

/**
 * Returns a percentile of what a histogram has counted, within the bounds linearly, as Prometheus does.
 *
 * @param {number[]} counts of each bound, one more without a bound, and the sum of the values
 * @param {number[]} bounds
 * @param {number} share such as 0.99
 * @returns {number | null} null: nothing was counted
 */
export function percentile(counts, bounds, share) {
  const numbers = counts.slice(0, bounds.length + 1);
  let wanted = sum(numbers) * share;
  if (!wanted) return null;
  for (const [index, count] of numbers.entries()) {
    if (count && wanted <= count) {
      if (index === bounds.length) return bounds[bounds.length - 1] ?? null;
      const low = index ? bounds[index - 1] : 0;
      return low + (bounds[index] - low) * (wanted / count);
    }
    wanted -= count;
  }
  return bounds[bounds.length - 1] ?? null;
}

/**
 * @param {number[][]} lists of equal lengths
 * @returns {number[]}
 */
export function added(lists) {
  return lists.reduce((total, list) => list.map((value, index) => value + (total[index] ?? 0)), /** @type {number[]} */ ([]));
}

/**
 * @param {ReturnType<typeof pairs>} both
 * @param {"delivery" | "loop_delay"} name
 * @returns {number[]} what was counted meanwhile, by all workers
 */
export function meanwhile(both, name) {
  return added(both.map(({ worker, before }) => worker[name].map((value, index) => Math.max(0, value - before[name][index]))));
}

/**
 * @param {Record<string, number>[]} records
 * @returns {[string, number][]} the sums by name, the largest first
 */
export function totals(records) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const record of records) {
    for (const [name, number] of Object.entries(record)) found.set(name, (found.get(name) ?? 0) + number);
  }
  return [...found].sort((one, other) => other[1] - one[1]);
}

/**
 * @param {Snapshot} snapshot
 * @returns {{facility: string, dialect: string, audience: string, sockets: number}[]} the most frequent first
 */
export function kinds({ workers }) {
  const rows = workers.flatMap(({ sockets }) => sockets.map(([...labels]) => ({ [JSON.stringify(labels.slice(0, 3))]: Number(labels[3]) })));
  return totals(rows).map(([key, sockets]) => {
    const [dialect, facility, audience] = JSON.parse(key);
    return { dialect, facility, audience, sockets };
  });
}

/**
 * @param {ReturnType<typeof pairs>} both
 * @param {Snapshot} after
 * @returns {{facility: string, messages: number, deliveries: number, total: number}[]} a second, and deliveries in all;
 *   those with the most deliveries a second first
 */
export function busiest(both, after) {
  /** @type {Map<string, {facility: string, messages: number, deliveries: number, total: number}>} */
  const found = new Map();
  const entry = (/** @type {string} */ facility) => {
    const known = found.get(facility) ?? { facility, messages: 0, deliveries: 0, total: 0 };
    found.set(facility, known);
    return known;
  };
  for (const { busiest: rows } of after.workers) for (const [facility, , deliveries] of rows) entry(facility).total += deliveries;
  for (const { worker, before, seconds } of both) {
    const earlier = new Map(before.busiest.map(([facility, ...numbers]) => [facility, numbers]));
    for (const [facility, messages, deliveries] of worker.busiest) {
      // One that was not among the busiest before has an unknown number: it is shown from the next snapshot on.
      const [had, delivered] = earlier.get(facility) ?? [messages, deliveries];
      // Each worker delivers the same messages to sockets of its own.
      const known = entry(facility);
      known.messages = Math.max(known.messages, Math.max(0, messages - had) / seconds);
      known.deliveries += Math.max(0, deliveries - delivered) / seconds;
    }
  }
  return [...found.values()].sort((one, other) => other.deliveries - one.deliveries || other.total - one.total);
}

/** @param {Snapshot} snapshot @returns {Slow[]} the slowest first */
export function slowest({ workers }) {
  return workers.flatMap((worker) => worker.slowest).sort((one, other) => other.queued_bytes - one.queued_bytes).slice(0, 10);
}

const UNITS = ["KiB", "MiB", "GiB", "TiB"];

/** @param {number} bytes @returns {string} such as `512 B` and `1.5 MiB` */
export function size(bytes) {
  let [value, unit] = [bytes, "B"];
  for (const next of UNITS) {
    if (value < 1024) break;
    [value, unit] = [value / 1024, next];
  }
  return `${unit !== "B" && value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** @param {number} value @returns {string} such as `0.4`, `12` and `1,234,567` */
export function number(value) {
  return value > 0 && value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

/** @param {number | null | undefined} seconds @returns {string} such as `0.42 ms`, `3.1 ms`, `1.2 s`, `3 min`, `5 h` */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const milliseconds = seconds * 1000;
  if (milliseconds < 1000) return `${milliseconds.toFixed(milliseconds < 1 ? 2 : milliseconds < 100 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

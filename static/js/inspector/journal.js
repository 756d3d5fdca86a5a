/** The entries of the log, the newest last, limited in number and bytes: the oldest entries are dropped. */

/**
 * @typedef {object} Entry
 * @property {number} number counts up from 1
 * @property {number} socket which of the page's sockets, counted from 1
 * @property {Date} time
 * @property {"in" | "out" | "event"} direction
 * @property {string} kind `text`, `json`, `binary`, `open`, `close`, `error` or `note`
 * @property {boolean} ping whether it only shows that the connection is alive, or measures a round trip
 * @property {number | null} bytes null: the entry has no size
 * @property {string} [text]
 * @property {Uint8Array} [data]
 * @property {string} [title]
 * @property {[string, string][]} [facts]
 * @property {string} [more] an explanation
 * @property {Help} [help]
 */

/** @typedef {{title: string, facts: [string, string][], more: string, text: string}} Help shown on request */

/**
 * @typedef {object} Filter
 * @property {string} words
 * @property {Record<"in" | "out" | "event" | "ping", boolean>} shown
 */

export class Journal {
  /** @type {Entry[]} */
  entries = [];
  dropped = 0;
  #bytes = 0;
  #number = 0;

  /** @param {number} mostEntries @param {number} mostBytes of all entries together */
  constructor(mostEntries, mostBytes) {
    this.mostEntries = mostEntries;
    this.mostBytes = mostBytes;
  }

  /** @param {Omit<Entry, "number">} content @returns {Entry} */
  add(content) {
    this.#number += 1;
    const entry = { ...content, number: this.#number };
    this.entries.push(entry);
    this.#bytes += entry.bytes ?? 0;
    while (this.entries.length > this.mostEntries || (this.#bytes > this.mostBytes && this.entries.length > 1)) {
      this.#bytes -= this.entries.shift()?.bytes ?? 0;
      this.dropped += 1;
    }
    return entry;
  }

  clear() {
    this.entries = [];
    this.dropped = 0;
    this.#bytes = 0;
  }
}

/** @param {Entry} entry @param {Filter} filter @returns {boolean} */
export function matches(entry, { words, shown }) {
  if (entry.ping ? !shown.ping : !shown[entry.direction]) return false;
  if (!words) return true;
  const facts = (entry.facts ?? []).flat();
  const all = [entry.kind, entry.title, entry.text, entry.more, entry.help?.title, ...facts]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => all.includes(word));
}

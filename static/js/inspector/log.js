/** The log on the page. It draws at most once per animation frame, whatever the number of messages. */

import { clock, counted, hexDump, prettyJson, size } from "./format.js";
import { Journal, matches } from "./journal.js";
import { find, make, save, setText } from "./page.js";

const MOST_ENTRIES = 500;
const MOST_BYTES = 16 * 1024 * 1024;
const SHORT_TEXT = 2000; // characters of a message that are shown first
const LONG_TEXT = 256 * 1024; // a longer text is shown unformatted
const SHORT_DATA = 256; // bytes
const LONG_DATA = 64 * 1024; // the rest of longer data can be saved
const ARROWS = { in: "↓", out: "↑", event: "•" };
const DIRECTIONS = { in: "received", out: "sent", event: "event" };
const NEAR_THE_END = 40; // pixels
const A_PICTURE = 16; // milliseconds of an animation frame

/** @typedef {import("./journal.js").Entry} Entry */

export class Log {
  #journal = new Journal(MOST_ENTRIES, MOST_BYTES);
  #drawn = 0; // number of the newest entry that was drawn or filtered out
  #paused = false;
  #scheduled = false;
  #follows = true;
  #rest = 0; // milliseconds until it may draw again

  /** @param {HTMLElement} panel */
  constructor(panel) {
    this.box = find(panel, "[data-log]");
    this.list = find(panel, "[data-entries]");
    this.filter = /** @type {HTMLFormElement} */ (find(panel, "[data-filter]"));
    this.count = find(panel, "[data-count]");
    this.droppedNote = find(panel, "[data-dropped]");
    this.emptyNote = find(panel, "[data-empty]");
    this.pauseButton = find(panel, "[data-pause]");
    this.newestButton = find(panel, "[data-newest]");
    this.filter.addEventListener("submit", (event) => event.preventDefault());
    this.filter.addEventListener("input", () => this.#redraw());
    find(panel, "[data-clear]").addEventListener("click", () => this.clear());
    this.pauseButton.addEventListener("click", () => this.#pause());
    this.newestButton.addEventListener("click", () => {
      this.#follow(true); // at once: the scroll event comes with the next frame
      this.#toNewest();
      this.box.focus();
    });
    this.box.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.box;
      this.#follow(scrollHeight - scrollTop - clientHeight < NEAR_THE_END);
    });
  }

  /** @param {Omit<Entry, "number" | "time">} content */
  add(content) {
    this.#journal.add({ ...content, time: new Date() });
    this.#schedule();
  }

  clear() {
    this.#journal.clear();
    this.#redraw();
  }

  #pause() {
    this.#paused = !this.#paused;
    this.pauseButton.setAttribute("aria-pressed", String(this.#paused));
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setTimeout(() => requestAnimationFrame(() => this.#drawAndRest()), this.#rest);
  }

  /** Limits drawing to a fifth of the time, so that the page responds to the user during a flood of messages. */
  #drawAndRest() {
    const began = performance.now();
    this.#scheduled = false;
    this.#draw();
    const spent = performance.now() - began;
    this.#rest = spent > A_PICTURE ? Math.min(4 * spent, 1000) : 0;
  }

  #redraw() {
    const { entries } = this.#journal;
    // A paused log does not show later entries.
    const newest = this.#paused ? this.#drawn : Infinity;
    this.list.replaceChildren();
    this.#append(entries.filter(({ number }) => number <= newest));
    this.#tell();
  }

  #draw() {
    if (!this.#paused) this.#append(this.#journal.entries.filter(({ number }) => number > this.#drawn));
    this.#tell();
  }

  /** @param {Entry[]} entries */
  #append(entries) {
    const filter = this.#filter();
    const items = entries.filter((entry) => matches(entry, filter)).map((entry) => draw(entry, filter.raw));
    this.list.append(...items);
    this.#drawn = entries[entries.length - 1]?.number ?? this.#drawn;
    if (!this.#paused) {
      const oldest = this.#journal.entries[0]?.number ?? Infinity;
      while (Number(this.list.firstElementChild?.dataset.number) < oldest) this.list.firstElementChild.remove();
    }
    if (this.#follows) this.#toNewest();
  }

  /** @param {boolean} follows */
  #follow(follows) {
    this.#follows = follows;
    this.newestButton.hidden = follows;
  }

  #toNewest() {
    this.box.scrollTop = this.box.scrollHeight;
  }

  #filter() {
    const values = new FormData(this.filter);
    const shown = {
      in: values.has("in"),
      out: values.has("out"),
      event: values.has("event"),
      ping: values.has("ping"),
    };
    return { words: String(values.get("words")).trim(), shown, raw: values.has("raw") };
  }

  #tell() {
    const { entries, dropped } = this.#journal;
    const waiting = this.#paused ? entries.filter(({ number }) => number > this.#drawn).length : 0;
    const shown = this.list.childElementCount;
    const parts = [
      shown === entries.length - waiting
        ? counted(shown, "entry", "entries")
        : `${shown} of ${entries.length - waiting} entries`,
    ];
    if (waiting) parts.push(`${waiting} more since the pause`);
    setText(this.count, entries.length ? parts.join(", ") : "");
    this.droppedNote.hidden = dropped === 0;
    const gone = `${counted(dropped, "older entry was", "older entries were")} dropped`;
    setText(this.droppedNote, `${gone}: the log keeps ${MOST_ENTRIES} entries and ${size(MOST_BYTES)}.`);
    this.emptyNote.hidden = shown > 0;
    if (shown === 0) {
      setText(
        this.emptyNote,
        entries.length
          ? "No entry matches the filter."
          : "The log is empty. Connect to begin.",
      );
    }
  }
}

/** @param {Entry} entry @param {boolean} raw @returns {HTMLElement} */
function draw(entry, raw) {
  const time = make("time", "entry-time", clock(entry.time));
  time.setAttribute("datetime", entry.time.toISOString());
  const arrow = make("span", "entry-arrow", ARROWS[entry.direction]);
  arrow.setAttribute("aria-hidden", "true");
  const head = make("p", "entry-head", time, arrow, make("span", "visually-hidden", `${DIRECTIONS[entry.direction]} `));
  head.append(
    make("span", "entry-kind", entry.ping && entry.direction !== "event" ? `${entry.kind}, ping` : entry.kind),
  );
  if (entry.title) head.append(make("span", "entry-title", entry.title));
  const meta = make("span", "entry-meta", make("span", "entry-socket", `#${entry.socket}`));
  if (entry.bytes !== null) meta.prepend(make("span", "entry-size", size(entry.bytes)), " ");
  head.append(meta);
  const item = make("li", "entry", head);
  Object.assign(item.dataset, { number: String(entry.number), direction: entry.direction, kind: entry.kind });
  if (entry.ping) item.dataset.isPing = "";
  if (entry.more) item.append(make("p", "entry-more", entry.more));
  if (entry.facts?.length) item.append(drawFacts(entry.facts));
  if (entry.text !== undefined) item.append(drawText(entry.text, raw || entry.ping));
  if (entry.help) item.append(drawHelp(entry.help));
  if (entry.data) item.append(drawData(entry));
  return item;
}

/** @param {[string, string][]} facts @returns {HTMLElement} */
function drawFacts(facts) {
  const list = make("dl", "entry-facts");
  for (const [name, value] of facts) list.append(make("dt", "", name), make("dd", "", value));
  return list;
}

/** @param {import("./journal.js").Help} help @returns {HTMLElement} a closed `details` element */
function drawHelp({ title, facts, more, text }) {
  const box = make(
    "details",
    "entry-help",
    make("summary", "", title),
    drawFacts(facts),
    make("p", "entry-more", more),
  );
  box.append(make("pre", "entry-text", text));
  return box;
}

/** @param {string} text @param {boolean} raw @returns {HTMLElement} */
function drawText(text, raw) {
  const all = (raw || text.length > LONG_TEXT ? null : prettyJson(text)) ?? text;
  if (!all) return make("p", "entry-more", "(empty)");
  const body = make("pre", "entry-text", all.slice(0, SHORT_TEXT));
  if (all.length <= SHORT_TEXT) return body;
  return withRest(body, `Show all ${all.length} characters`, () => all);
}

/** @param {Entry} entry @returns {HTMLElement} */
function drawData({ data = new Uint8Array(), number, kind }) {
  const perRow = matchMedia("(min-width: 40rem)").matches ? 16 : 8;
  const body = make("pre", "entry-data", hexDump(data.subarray(0, SHORT_DATA), perRow));
  const most = Math.min(data.length, LONG_DATA);
  const label =
    most < data.length ? `Show the first ${size(most)} of ${size(data.length)}` : `Show all ${data.length} bytes`;
  const box =
    data.length > SHORT_DATA
      ? withRest(body, label, () => hexDump(data.subarray(0, most), perRow))
      : make("div", "", body);
  const button = make("button", "button quiet small", "Save");
  button.setAttribute("type", "button");
  button.setAttribute("aria-label", `Save the ${kind} message of ${data.length} bytes`);
  button.addEventListener("click", () => save(/** @type {Uint8Array<ArrayBuffer>} */ (data), `message-${number}.bin`));
  box.append(button);
  return box;
}

/** @param {HTMLElement} body @param {string} label @param {() => string} whole @returns {HTMLElement} */
function withRest(body, label, whole) {
  const button = make("button", "button quiet small", label);
  button.setAttribute("type", "button");
  button.addEventListener("click", () => {
    body.textContent = whole();
    body.tabIndex = -1;
    body.focus();
    button.remove();
  });
  return make("div", "entry-body", body, button);
}

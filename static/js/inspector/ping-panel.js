/** The panel that measures round trips, draws the latest ones, or shows why it cannot. */

import { counted, roundTrip } from "./format.js";
import { enable, find, isEnabled, setText } from "./page.js";
import { bars, howToMeasure, RoundTrips } from "./round-trip.js";

const AREA = { width: 300, height: 72 }; // of the viewBox
const PAUSE = 1000; // milliseconds between two measurements of a series

/** @typedef {import("./socket.js").InspectedSocket} InspectedSocket */

export class PingPanel {
  /** @type {InspectedSocket | null} */
  #socket = null;
  /** @type {RoundTrips | null} of the latest socket, also after its end */
  #trips = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #series;

  /**
   * @param {HTMLElement} panel
   * @param {(socket: InspectedSocket, text: string) => void} send
   * @param {(socket: InspectedSocket, text: string) => void} note
   */
  constructor(panel, send, note) {
    this.panel = panel;
    this.send = send;
    this.note = note;
    this.once = find(panel, "[data-ping]");
    this.series = find(panel, "[data-ping-series]");
    this.why = find(panel, "#ping-why");
    this.plot = find(panel, "[data-plot]");
    this.once.addEventListener("click", () => isEnabled(this.once) && this.#measure());
    this.series.addEventListener("click", () => isEnabled(this.series) && this.#toggle());
    this.#allow(false, "Connect first.");
  }

  /** @param {InspectedSocket} socket */
  opened(socket) {
    this.#socket = socket;
    this.#trips = new RoundTrips(() => performance.now(), `round-trip-${Math.random().toString(36).slice(2, 8)}`);
    const { possible, text } = howToMeasure(socket);
    this.#allow(possible, text);
    this.#show();
  }

  closed() {
    this.#stop();
    this.#socket = null;
    this.#allow(false, "There is no open socket.");
  }

  /** @param {InspectedSocket} socket @param {string} text @returns {number | null} milliseconds, if it is the answer */
  answered(socket, text) {
    if (socket !== this.#socket || !this.#trips) return null;
    const milliseconds = this.#trips.answered(text);
    if (milliseconds !== null) this.#show();
    return milliseconds;
  }

  #measure() {
    if (!this.#socket?.isOpen || !this.#trips) return;
    if (this.#trips.expired()) {
      this.note(this.#socket, "No answer within 5 seconds.");
      this.#show();
    }
    if (!this.#trips.waiting) this.send(this.#socket, this.#trips.probe());
  }

  #toggle() {
    if (this.#series !== undefined) return this.#stop();
    this.#measure();
    this.#series = setInterval(() => this.#measure(), PAUSE);
    this.series.setAttribute("aria-pressed", "true");
  }

  #stop() {
    clearInterval(this.#series);
    this.#series = undefined;
    this.series.setAttribute("aria-pressed", "false");
  }

  /** @param {boolean} possible @param {string} text */
  #allow(possible, text) {
    enable(this.once, possible);
    enable(this.series, possible);
    setText(this.why, text);
  }

  #show() {
    const trips = /** @type {RoundTrips} */ (this.#trips);
    const figures = trips.count
      ? { last: trips.last ?? 0, min: trips.min, average: trips.average, max: trips.max }
      : {};
    for (const name of ["last", "min", "average", "max"]) {
      const value = /** @type {Record<string, number>} */ (figures)[name];
      setText(find(this.panel, `[data-figure=${name}]`), value === undefined ? "–" : roundTrip(value));
    }
    const drawn = bars(trips.latest, AREA).map((bar) => rectangle(bar));
    this.plot.replaceChildren(...drawn);
    const summary = [counted(trips.count, "measurement")];
    if (trips.unanswered) summary.push(`${trips.unanswered} without an answer`);
    const most = Math.max(...trips.latest.map((each) => each ?? 0));
    if (trips.count) summary.push(`the highest bar is ${roundTrip(most)}`);
    const caption = trips.latest.length ? `${summary.join(", ")}.` : "This plot shows the last 30 measurements.";
    setText(find(this.panel, "[data-plot-caption]"), caption);
    const values = trips.latest.map((each) => (each === null ? "no answer" : roundTrip(each)));
    this.plot.setAttribute(
      "aria-label",
      values.length ? `The last round trips: ${values.join(", ")}` : "No measurement yet",
    );
  }
}

/** @param {ReturnType<typeof bars>[number]} bar @returns {SVGElement} */
function rectangle({ answered, ...place }) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries(place)) element.setAttribute(name, String(Math.round(value * 10) / 10));
  element.setAttribute("class", answered ? "answered" : "unanswered");
  return element;
}

/** The page of random numbers: starts and stops a connection that gets a number each second, and plots a minute. */

import { SIGNED_OUT, connectConsumer } from "../wsloop/wsloop.js";
import { signedOut } from "./account.js";
import { stateOf } from "./state.js";
import { make } from "./svg.js";

const MINUTE = 60; // seconds that are plotted
const GAP = 2500; // milliseconds; a longer time between two numbers is a gap in the plot: no connection
const PATIENCE = 10_000; // milliseconds without a number after which the connection is dead
const MARGIN = { top: 12, right: 12, bottom: 24, left: 32 }; // pixels around the plot, for the labels of its axes

const page = /** @type {HTMLElement} */ (document.querySelector("[data-random]"));
const toggle = find("[data-toggle]");
const plot = /** @type {SVGSVGElement} */ (page.querySelector("[data-plot]"));
const showState = stateOf(find("[data-line]"));

/** @typedef {{value: number, time: number}} Sample a number, and its time in milliseconds */
/** @type {Sample[]} of the last minute, the newest last */
let samples = [];
/** @type {import("../wsloop/wsloop.js").ConsumerLine | null} */
let line = null;

toggle.addEventListener("click", () => (line ? stop() : start()));
new ResizeObserver(draw).observe(plot);
find("[data-needs-script]").hidden = false;

function start() {
  line = connectConsumer(String(page.dataset.random), {
    patience: PATIENCE,
    onMessage: (data) => show(Number(data)),
    onState(state) {
      showState(state);
      if (state.name !== "offline") return;
      ended();
      if (state.reason === SIGNED_OUT) signedOut();
    },
  });
  label("Stop");
}

function stop() {
  line?.close();
  showState({ name: "stopped" });
  ended();
}

function ended() {
  line = null;
  label("Start");
}

/** @param {"Start" | "Stop"} action */
function label(action) {
  toggle.textContent = action;
  toggle.classList.toggle("quiet", action === "Stop");
}

/** @param {number} value */
function show(value) {
  const time = performance.now();
  samples = [...samples.filter((sample) => time - sample.time < MINUTE * 1000), { value, time }];
  const values = samples.map((sample) => sample.value);
  find("[data-number]").textContent = String(value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const range = `minimum ${least}, maximum ${most}`;
  find("[data-summary]").textContent = `Received in the last minute: ${values.length}; ${range}`;
  draw();
}

/** Draws in pixels, so that texts have the same size on every screen. The newest sample is on the right. */
function draw() {
  const { width, height } = plot.getBoundingClientRect();
  const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
  const now = samples.at(-1)?.time ?? 0;
  /** @param {number} seconds ago */
  const x = (seconds) => right - (seconds / MINUTE) * (right - left);
  /** @param {number} value */
  const y = (value) => bottom - (value / 100) * (bottom - top);
  const points = samples.map(({ value, time }) => [x((now - time) / 1000), y(value)]);
  const joined = samples.map(({ time }, index) => index > 0 && time - samples[index - 1].time < GAP);
  plot.replaceChildren(
    ...[0, 25, 50, 75, 100].flatMap((value) => [
      make("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      make("text", { class: "y", x: left - 8, y: y(value) }, String(value)),
    ]),
    ...[60, 45, 30, 15, 0].map((seconds) =>
      make("text", { class: "x", x: x(seconds), y: height - 4 }, seconds ? `${seconds} s` : "last"),
    ),
    make("path", { d: points.map((point, index) => `${joined[index] ? "L" : "M"}${point}`).join("") }),
    ...points.map(([cx, cy]) => make("circle", { cx, cy, r: 2.5 })),
  );
}

/** @param {string} selector @returns {HTMLElement} */
function find(selector) {
  return /** @type {HTMLElement} */ (page.querySelector(selector));
}

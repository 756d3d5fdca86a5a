/**
 * The start page: sends messages to itself, shows the way of each with what was measured, and closes its socket when
 * the visitor pulls the plug. The messages that are published meanwhile arrive when it is plugged in again.
 */

import { SIGNED_OUT, connect } from "../wsloop/wsloop.js";
import { signedOut } from "./account.js";
import { disable } from "./forms.js";
import { Journeys, median, partsOf } from "./home/journeys.js";
import { lightsOf } from "./home/lights.js";
import { draw } from "./home/plot.js";
import { roundTrip } from "./inspector/format.js";
import { newKey } from "./rooms/words.js";
import { stateOf } from "./state.js";

const SERIES = 20; // messages
const BETWEEN = 100; // milliseconds between two messages of a series
const MEANWHILE = 10; // messages that the page has published while it is unplugged
const EACH = 1000; // milliseconds between two of them
const MOST_ARRIVALS = 12; // shown at a time

const page = /** @type {HTMLElement} */ (document.querySelector("[data-way]"));
const form = /** @type {HTMLFormElement} */ (find("[data-send]"));
const plug = find("[data-plug]");
const series = find("[data-series]");
const stations = find("[data-stations]");
const arrivals = find("[data-arrivals]");
const plot = /** @type {SVGSVGElement} */ (page.querySelector("[data-plot]"));
const socket = find("[data-socket]");
const showState = stateOf(socket);
const light = lightsOf(stations);
const journeys = new Journeys();

/** @type {import("../wsloop/wsloop.js").Subscription | null} null: the plug is out */
let line = null;
let token = String(socket.dataset.token);
let isConnected = false;
/** @type {Set<Promise<unknown>>} requests to the view without an answer */
const requests = new Set();
/** @type {ReturnType<typeof setInterval> | undefined} publishes while the plug is out */
let meanwhile;
/** @type {{left: number, totals: number[]} | null} a series under way */
let running = null;
let wasInterrupted = false; // and not all that was missed is here
let recovered = 0; // messages, since then
let lastRecovered = 0; // number of the last one of them
let isInOrder = true;

// --- sending ---------------------------------------------------------------------------------------------------------

/** @returns {Promise<boolean>} whether the view has published it */
function send() {
  const request = post().finally(() => requests.delete(request));
  requests.add(request);
  return request;
}

async function post() {
  const id = newKey();
  const body = new URLSearchParams(/** @type {any} */ (new FormData(form)));
  body.set("id", id);
  journeys.sent(id, performance.now(), !isConnected);
  const { ok, milliseconds, problem } = await answerTo(body);
  if (!ok) {
    journeys.failed(id);
    tell(String(problem), true);
    return false;
  }
  journeys.answered(id, milliseconds);
  if (isConnected) showNumbers(); // the message may have been faster
  else light("view", "redis");
  showWaiting();
  return true;
}

/**
 * @param {URLSearchParams} body
 * @returns {Promise<any>} the answer of the view: `{ok: true, milliseconds}`; or `{ok: false, problem}`, a sentence
 */
async function answerTo(body) {
  let response;
  try {
    response = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" }, body });
  } catch {
    return { ok: false, problem: "The server cannot be reached. Try again." };
  }
  try {
    const { errors = {}, ...answer } = await response.json();
    return { ...answer, problem: Object.values(errors).flat().join(" ") };
  } catch {
    // Not the view's answer: Django's page about an expired CSRF token, or the server's error page.
    const cure = response.status === 403 ? "Reload the page and send it again." : "Try again.";
    return { ok: false, problem: `The server did not accept the message (error ${response.status}). ${cure}` };
  }
}

/** Sends messages, one after the other, until they have arrived; anything that interrupts them ends it. */
async function sendSeries() {
  const mine = { left: SERIES, totals: [] };
  running = mine;
  showSeries();
  tell(`Sending ${SERIES} messages …`);
  for (let sent = 0; sent < SERIES && running === mine; sent += 1) {
    if (!(await send()) && running === mine) endSeries();
    await new Promise((resolve) => setTimeout(resolve, BETWEEN));
  }
}

function endSeries() {
  running = null;
  showSeries();
}

/** A series measures round trips, so it needs a connection. */
function showSeries() {
  if (isEnded()) return;
  if (isConnected && !running) series.removeAttribute("aria-disabled");
  else series.setAttribute("aria-disabled", "true");
}

// --- receiving -------------------------------------------------------------------------------------------------------

function plugIn() {
  page.dataset.plugged = "in";
  plug.textContent = "Pull the plug";
  line = connect(String(socket.dataset.socket), {
    token,
    onState(state) {
      isConnected = state.name === "connected";
      if (state.name === "reconnecting" || state.name === "offline") interrupted();
      if (state.name === "connected" && state.recovered) tellRecovery();
      if (state.name === "connected" && !state.recovered) tellLost();
      if (state.name === "offline" && state.reason === SIGNED_OUT) ended();
      showState(state);
      showSeries();
      showWaiting();
    },
    onLost: tellLost,
    onMessage({ data, kept }) {
      if (!kept) show(journeys.arrived(idOf(data), performance.now()));
    },
  });
}

/** Closes the socket, and asks the view for messages meanwhile. */
function pull() {
  if (!line) return;
  token = line.token;
  line.close();
  line = null;
  isConnected = false;
  interrupted();
  page.dataset.plugged = "out";
  plug.textContent = "Plug in again";
  showState({ name: "unplugged" });
  showWaiting();
  tell(`The socket of this page is closed. Messages are published all the same: one a second, ${MEANWHILE} at most.`);
  let left = MEANWHILE;
  const publish = () => {
    left -= 1;
    if (left === 0) clearInterval(meanwhile);
    send().then((isPublished) => isPublished || clearInterval(meanwhile));
  };
  meanwhile = setInterval(publish, EACH);
  publish();
}

/** What is on its way can only be recovered, and takes as long as the interruption. */
function interrupted() {
  forgetInterruption();
  wasInterrupted = true;
  journeys.away();
  endSeries();
}

async function toggle() {
  if (line) return pull();
  if (page.dataset.plugged === "in") return; // pressed twice
  page.dataset.plugged = "in";
  clearInterval(meanwhile);
  await Promise.allSettled(requests); // what is published now was published while the plug was out
  plugIn();
}

/** @param {string | Uint8Array} data @returns {string} of the message; empty if it is none of this page */
function idOf(data) {
  try {
    return String(JSON.parse(String(data)).id);
  } catch {
    return ""; // anything may be published by anybody who may
  }
}

// --- showing ---------------------------------------------------------------------------------------------------------

/** @param {import("./home/journeys.js").Arrival} arrival */
function show({ number, total, recovered: isRecovered }) {
  const name = number === null ? "from another window" : `${number}`;
  const item = document.createElement("li");
  item.textContent = isRecovered ? `${name} recovered` : total === null ? name : `${name}: ${roundTrip(total)}`;
  if (isRecovered) item.dataset.recovered = "";
  arrivals.append(item);
  while (arrivals.children.length > MOST_ARRIVALS) arrivals.firstElementChild?.remove();
  if (isRecovered) {
    light("redis", "page");
    tellRecovered(number);
  } else {
    light("view", "page");
    if (total !== null) tellArrived(Number(number), total);
  }
  showWaiting();
}

/** @param {number} number @param {number} total */
function tellArrived(number, total) {
  showNumbers();
  if (!running) return tell(`Message ${number} arrived after ${roundTrip(total)}.`);
  running.left -= 1;
  running.totals.push(total);
  if (running.left > 0) return;
  const { totals } = running;
  endSeries();
  tell(`${SERIES} messages arrived: median ${roundTrip(median(totals))}, slowest ${roundTrip(Math.max(...totals))}.`);
}

/** @param {number | null} number */
function tellRecovered(number) {
  recovered += 1;
  if (number !== null) {
    isInOrder &&= number > lastRecovered;
    lastRecovered = number;
  }
  tellRecovery();
}

/** Tells of an interruption, when all of its messages are here. */
function tellRecovery() {
  if (!(wasInterrupted || recovered) || journeys.missed > 0) return;
  const order = isInOrder ? "in the order in which they were published" : "but not in order";
  if (recovered > 1) tell(`${recovered} missed messages were recovered, ${order}.`);
  else tell(recovered ? "1 missed message was recovered." : "The page is connected again. It has missed nothing.");
  forgetInterruption();
}

function tellLost() {
  const lost = journeys.giveUp();
  const sentence = `The page is connected again. Missed messages could not be recovered: ${lost}.`;
  if (wasInterrupted || lost) tell(sentence, true);
  forgetInterruption();
}

function forgetInterruption() {
  wasInterrupted = false;
  recovered = lastRecovered = 0;
  isInOrder = true;
}

/** Shows what was measured on the latest round trip, and the plot. */
function showNumbers() {
  const trip = journeys.trips.at(-1);
  if (!trip) return;
  const totals = journeys.trips.map(({ total }) => total);
  const values = { ...partsOf(trip), page: trip.total };
  for (const [name, value] of Object.entries(values)) {
    for (const element of page.querySelectorAll(`[data-value=${name}]`)) element.textContent = roundTrip(value);
  }
  const [least, middle, most] = [Math.min(...totals), median(totals), Math.max(...totals)].map(roundTrip);
  const count = totals.length === 1 ? "1 round trip" : `The latest ${totals.length} round trips`;
  find("[data-summary]").textContent = `${count}: fastest ${least}, median ${middle}, slowest ${most}`;
  draw(plot, journeys.trips);
}

/** Shows on the way what happens to messages that cannot arrive. */
function showWaiting() {
  const { missed } = journeys;
  find("[data-waiting]").textContent = missed ? `keeps ${missed} for you` : "";
  find("[data-value=worker]").textContent = isConnected ? "your socket is open" : "no socket of yours";
}

/** @param {string} sentence @param {boolean} [isProblem] */
function tell(sentence, isProblem = false) {
  const told = find("[data-told]");
  told.textContent = sentence;
  told.dataset.kind = isProblem ? "error" : "";
}

function ended() {
  disable(form);
  signedOut();
}

function isEnded() {
  return form.dataset.disabled !== undefined;
}

/** @param {string} selector @returns {HTMLElement} */
function find(selector) {
  return /** @type {HTMLElement} */ (page.querySelector(selector));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!isEnded()) send();
});
series.addEventListener("click", () => {
  if (!isEnded() && series.getAttribute("aria-disabled") !== "true") sendSeries();
});
plug.addEventListener("click", () => {
  if (!isEnded()) toggle();
});
for (const element of page.querySelectorAll("[data-needs-script]")) {
  /** @type {HTMLElement} */ (element).hidden = false;
}
new ResizeObserver(() => draw(plot, journeys.trips)).observe(plot);
plugIn();

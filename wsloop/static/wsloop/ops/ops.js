/** The page of staff: shows the numbers that its socket brings, finds users and facilities, and acts on them. */

import { connectConsumer } from "../wsloop.js";
import * as numbers from "./numbers.js";
import { draw } from "./plot.js";

const KEPT = 300; // snapshots: ten minutes
const SHOWN = 15; // rows of a table

const page = document.body;
/** @type {numbers.Snapshot | null} */
let last = null;
/** @type {number[]} */
const times = [];
/** @type {Record<string, (number | null)[]>} */
const series = { sockets: [], messagesOut: [], messagesIn: [], p50: [], p95: [], p99: [], delay: [] };
/** @type {Record<string, {lines: [string, string][], format: (value: number) => string, none?: string}>} */
const PLOTS = {
  sockets: { lines: [["sockets", "open"]], format: numbers.number },
  messages: {
    lines: [
      ["messagesOut", "to clients"],
      ["messagesIn", "from clients"],
    ],
    format: numbers.number,
  },
  delivery: {
    lines: [
      ["p50", "median"],
      ["p95", "95 %"],
      ["p99", "99 %"],
    ],
    format: numbers.time,
    none: "No message has brought its time along yet.",
  },
  delay: { lines: [["delay", "99 %"]], format: numbers.time },
};
const meanings = JSON.parse(find("#close-codes").textContent);

// --- the elements of the page ----------------------------------------------------------------------------------------

/** @param {string} selector @returns {any} the element, which must be there */
function find(selector) {
  const element = document.querySelector(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/** @param {Element} element @param {string} text set only if it differs, so that screen readers announce it once */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {string} name @param {string} text */
function tile(name, text) {
  setText(find(`[data-tile=${name}]`), text);
}

/**
 * Fills a table. Rows and cells stay, so that a selection and a screen reader's place are kept.
 *
 * @param {string} name
 * @param {(string | number)[][]} rows
 * @param {string} none what it says without rows
 * @param {number} [most] rows that are shown
 * @param {number} [all] how many there are, of which the rows are the first
 */
function table(name, rows, none, most = SHOWN, all = rows.length) {
  const body = find(`[data-table=${name}]`);
  const columns = [...body.closest("table").querySelectorAll("th[scope=col]")];
  const wanted = rows.slice(0, most);
  const rest = all - wanted.length;
  if (rest || !rows.length) wanted.push([rest ? `and ${numbers.number(rest)} more` : none]);
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  for (const [index, cells] of wanted.entries()) {
    const isNote = cells.length < columns.length;
    const row = body.rows[index] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    for (const [at, content] of cells.entries()) {
      const cell = row.cells[at] ?? row.insertCell();
      setText(cell, String(content));
      cell.className = isNote ? "none" : columns[at].className;
      cell.colSpan = isNote ? columns.length : 1;
    }
  }
}

// --- the numbers -----------------------------------------------------------------------------------------------------

/** @param {numbers.Snapshot} snapshot */
function show(snapshot) {
  const both = numbers.pairs(last, snapshot);
  const { workers } = snapshot;
  const delivery = numbers.meanwhile(both, "delivery");
  const delay = numbers.meanwhile(both, "loop_delay");
  const at = (/** @type {number} */ share) => numbers.percentile(delivery, numbers.DELIVERY_BOUNDS, share);
  const isFirst = !both.length;
  const now = {
    sockets: numbers.sum(workers.map(numbers.socketsOf)),
    messagesOut: isFirst ? null : numbers.rate(both, "messages_out"),
    messagesIn: isFirst ? null : numbers.rate(both, "messages_in"),
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    delay: numbers.percentile(delay, numbers.DELAY_BOUNDS, 0.99),
  };
  times.push(snapshot.time);
  for (const [name, value] of Object.entries(now)) series[name].push(value);
  if (times.length > KEPT) for (const list of [times, ...Object.values(series)]) list.shift();
  showTiles(snapshot, both, now);
  showTables(snapshot, both);
  showPlots();
  const missing = snapshot.missing;
  problem(missing ? `${missing} of ${missing + workers.length} workers did not answer: their numbers are missing.` : "");
  last = snapshot;
}

/**
 * @param {numbers.Snapshot} snapshot
 * @param {ReturnType<typeof numbers.pairs>} both
 * @param {Record<string, number | null>} now
 */
function showTiles({ workers }, both, now) {
  const a = (/** @type {number | null} */ value) => (value === null ? "–" : `${numbers.number(value)}/s`);
  const total = (/** @type {(worker: numbers.Worker) => number} */ of) => numbers.sum(workers.map(of));
  const machines = new Set(workers.map(({ machine }) => machine)).size;
  tile("sockets", numbers.number(now.sockets ?? 0));
  tile("workers", String(workers.length));
  tile("machines", `on ${machines} ${machines === 1 ? "machine" : "machines"}`);
  tile("messagesOut", a(now.messagesOut));
  tile("messagesIn", a(now.messagesIn));
  tile("bytesOut", both.length ? `${numbers.size(numbers.rate(both, "bytes_out"))}/s` : "");
  tile("bytesIn", both.length ? `${numbers.size(numbers.rate(both, "bytes_in"))}/s` : "");
  tile("delivery", numbers.time(now.p99));
  tile("delay", numbers.time(now.delay));
  const blocked = total(({ blocked_seconds: loops }) => numbers.sum(Object.values(loops)));
  tile("blocked", blocked ? `blocked ${numbers.time(blocked)} in all` : "never blocked");
  tile("queued", numbers.size(total(({ queued_bytes: bytes }) => bytes)));
  tile("slow", `${numbers.number(total(({ slow_sockets: slow }) => slow))} sockets`);
  const trips = workers.flatMap(({ redis_seconds: seconds }) => (seconds === undefined ? [] : [seconds]));
  tile("redis", trips.length ? numbers.time(Math.max(...trips)) : "–");
  const up = total(({ redis_up: isUp }) => isUp);
  tile("redisUp", up === workers.length ? "round trip" : `${workers.length - up} workers not subscribed`);
}

/** @param {numbers.Snapshot} snapshot @param {ReturnType<typeof numbers.pairs>} both */
function showTables(snapshot, both) {
  const { workers, redis } = snapshot;
  const earlier = new Map(both.map((each) => [numbers.keyOf(each.worker), each]));
  const rows = workers.map((worker) => {
    const known = earlier.get(numbers.keyOf(worker));
    const mine = known ? [known] : [];
    const a = (/** @type {"messages_in" | "messages_out"} */ name) => (known ? numbers.number(numbers.rate(mine, name)) : "–");
    const delay = numbers.percentile(numbers.meanwhile(mine, "loop_delay"), numbers.DELAY_BOUNDS, 0.99);
    return [
      ...[worker.machine, worker.worker, numbers.number(numbers.socketsOf(worker)), a("messages_out"), a("messages_in")],
      ...[numbers.time(delay), known ? `${Math.round(numbers.rate(mine, "cpu") * 100)} %` : "–"],
      ...[worker.memory ? numbers.size(worker.memory) : "–", worker.redis_up ? "subscribed" : "not subscribed"],
      numbers.time(worker.time - worker.started),
    ];
  });
  table("workers", rows, "No worker has served a socket yet.");
  const busiest = numbers.busiest(both, snapshot);
  table(
    "busiest",
    busiest.map(({ facility, messages, deliveries, total }) => [facility, ...[messages, deliveries, total].map(numbers.number)]),
    "No messages so far.",
  );
  table(
    "slowest",
    numbers.slowest(snapshot).map((socket) => [socket.name ?? "nobody", socket.address ?? "–", on(socket), numbers.size(socket.queued_bytes)]),
    "All clients read what they are sent.",
  );
  table(
    "closes",
    numbers.totals(workers.map(({ closes }) => closes)).map(([code, count]) => [code, meaning(code), numbers.number(count)]),
    "No socket has ended so far.",
  );
  table(
    "kinds",
    numbers.kinds(snapshot).map(({ facility, dialect, audience, sockets }) => [facility, dialect, audience, numbers.number(sockets)]),
    "No socket is open.",
  );
  const outcomes = [...new Set(workers.flatMap(({ handshakes }) => Object.keys(handshakes)))].sort();
  const events = outcomes.map((outcome) => {
    const counts = numbers.added(workers.flatMap(({ handshakes }) => (outcome in handshakes ? [handshakes[outcome]] : [])));
    const duration = numbers.percentile(counts, numbers.HANDSHAKE_BOUNDS, 0.99);
    const name = { opened: "handshakes: opened", left: "handshakes: the client left" }[outcome];
    return [name ?? `handshakes: ${outcome}`, numbers.number(numbers.sum(counts.slice(0, -1))), numbers.time(duration)];
  });
  const others = /** @type {[string, (worker: numbers.Worker) => Record<string, number>][]} */ ([
    ["limit reached", (worker) => worker.bounds_reached],
    ["lost", (worker) => worker.lost],
    ["recovery", (worker) => worker.recoveries],
  ]);
  for (const [what, of] of others) {
    for (const [name, count] of numbers.totals(workers.map(of))) events.push([`${what}: ${name}`, numbers.number(count), ""]);
  }
  table("events", events, "None so far.");
  const facts = Object.entries(redis).flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name.replaceAll("_", " ");
    text.textContent = name.includes("memory") ? (value ? numbers.size(Number(value)) : "no limit") : String(value);
    if (name === "uptime_in_seconds") [term.textContent, text.textContent] = ["uptime", numbers.time(Number(value))];
    return [term, text];
  });
  find("[data-redis]").replaceChildren(...facts);
}

/** @param {string} code @returns {string} */
function meaning(code) {
  const others = /** @type {Record<string, string>} */ ({
    1001: "the client has left the page",
    1005: "the client has closed without a code",
    1006: "the connection broke, or was cut",
    other: "a code that the client or the site has chosen",
  });
  return meanings[code] ?? others[code] ?? "";
}

/** @param {numbers.Slow} socket @returns {string} */
function on({ facilities, place }) {
  return facilities.length ? facilities.map((name) => name || "(no name)").join(", ") : place;
}

function showPlots() {
  if (document.hidden) return;
  for (const [name, { lines, format, none = "" }] of Object.entries(PLOTS)) {
    const made = lines.map(([key, label]) => ({ name: label, values: series[key] }));
    draw(find(`[data-plot=${name}]`), times, made, format, none);
  }
}

for (const [name, { lines }] of Object.entries(PLOTS)) {
  if (lines.length < 2) continue;
  for (const [index, [, label]] of lines.entries()) {
    const key = document.createElement("span");
    key.className = `key key-${index}`;
    key.textContent = label;
    find(`[data-legend=${name}]`).append(key);
  }
}
new ResizeObserver(showPlots).observe(find(".plots"));
document.addEventListener("visibilitychange", showPlots);

// --- the socket ------------------------------------------------------------------------------------------------------

/** @param {string} text empty: there is none */
function problem(text) {
  const element = find("[data-problem]");
  element.hidden = !text;
  setText(element, text);
}

connectConsumer(page.dataset.socket ?? "", {
  patience: 20_000,
  onState(state) {
    const line = find("[data-line]");
    line.dataset.state = state.name;
    const text = state.name === "offline" ? `offline: ${state.reason}` : state.name;
    setText(find("[data-line-text]"), text === "connected" ? "live" : text);
  },
  onMessage(data) {
    const content = JSON.parse(String(data));
    if (content.error) problem(content.error);
    else show(content);
  },
});

// --- finding and acting ----------------------------------------------------------------------------------------------

/**
 * @param {string | undefined} url
 * @param {Record<string, string>} values
 * @param {boolean} [isAction]
 * @returns {Promise<any>} the answer, which has `error` if it is one
 */
async function ask(url, values, isAction = false) {
  const query = new URLSearchParams(values);
  try {
    const token = find("[name=csrfmiddlewaretoken]").value;
    const response = isAction
      ? await fetch(String(url), { method: "POST", body: query, headers: { "X-CSRFToken": token } })
      : await fetch(`${url}?${query}`);
    if (response.headers.get("Content-Type")?.startsWith("application/json")) return await response.json();
    return { error: `The server answered with ${response.status}. Load the page again.` };
  } catch {
    return { error: "The server cannot be reached." };
  }
}

/** @param {HTMLFormElement} form @param {string} name @returns {string} */
function valueOf(form, name) {
  return String(new FormData(form).get(name) ?? "").trim();
}

/** @param {numbers.Slow & {name?: string}} socket */
function cellsOf(socket) {
  return [
    ...[on(socket), socket.audiences.join(", ") || "–", socket.dialect, socket.address ?? "–"],
    ...[`${socket.machine} ${socket.worker}`, numbers.size(socket.queued_bytes)],
  ];
}

/** @param {(string | number)[]} one @param {(string | number)[]} other @returns {number} */
function byFirst([one], [other]) {
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

let found = ""; // the name of the user
const message = find("[data-message]");
const kick = find("[data-disconnect]");
const cancel = find("[data-cancel]");

/** @param {string} name @param {boolean} [isQuiet] whether to say nothing of it */
async function findUser(name, isQuiet = false) {
  const answer = await ask(page.dataset.userUrl, { name });
  const said = find("[data-said=user]");
  find("[data-found=user]").hidden = Boolean(answer.error);
  askTwice(false);
  if (answer.error) return setText(said, answer.error);
  if (!isQuiet) setText(find("[data-done]"), "");
  found = name;
  const more = answer.missing ? ` ${answer.missing} workers did not answer.` : "";
  setText(said, `${name} has ${answer.sockets} open ${answer.sockets === 1 ? "socket" : "sockets"}.${more}`);
  const rows = answer.shown.map(cellsOf).sort(byFirst); // they come in no order
  table("user", rows, "No open socket.", rows.length, answer.sockets);
  const facilities = new Set(
    answer.shown.flatMap((/** @type {numbers.Slow} */ socket) => (socket.audiences.includes("user") ? socket.facilities : [])),
  );
  const list = find("#message-facilities");
  list.replaceChildren(...[...facilities].map((facility) => Object.assign(document.createElement("option"), { value: facility })));
  if (!message.elements.facility.value) message.elements.facility.value = [...facilities][0] ?? "";
}

find("[data-find=user]").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  message.elements.facility.value = "";
  findUser(valueOf(/** @type {HTMLFormElement} */ (event.target), "name"));
});

message.addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const values = { name: found, facility: valueOf(message, "facility"), text: valueOf(message, "text") };
  const answer = await ask(page.dataset.messageUrl, values, true);
  if (!answer.error) message.elements.text.value = "";
  const sockets = `${answer.sockets} ${answer.sockets === 1 ? "socket listens" : "sockets listen"}`;
  setText(find("[data-done]"), answer.error ?? `Sent to ${found}: ${sockets} to this user's messages there.`);
});

/** @param {boolean} isAsked whether the next press disconnects */
function askTwice(isAsked) {
  kick.dataset.asked = isAsked ? "yes" : "";
  cancel.hidden = !isAsked;
  setText(kick.querySelector("button"), isAsked ? `Yes, disconnect ${found}` : "Disconnect this user");
}

kick.addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  if (!kick.dataset.asked) return askTwice(true);
  askTwice(false);
  const answer = await ask(page.dataset.disconnectUrl, { name: found }, true);
  const sockets = `${answer.sockets} ${answer.sockets === 1 ? "socket" : "sockets"}`;
  setText(find("[data-done]"), answer.error ?? `Disconnected ${found}: ${sockets}.`);
  if (!answer.error) await findUser(found, true);
});
cancel.addEventListener("click", () => {
  askTwice(false);
  kick.querySelector("button").focus();
});

find("[data-find=facility]").addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const name = valueOf(/** @type {HTMLFormElement} */ (event.target), "name");
  const answer = await ask(page.dataset.facilityUrl, { name });
  find("[data-found=facility]").hidden = Boolean(answer.error);
  const many = `${answer.sockets} open ${answer.sockets === 1 ? "socket listens" : "sockets listen"} to ${name}.`;
  setText(find("[data-said=facility]"), answer.error ?? many);
  if (answer.error) return;
  const people = numbers.totals(answer.shown.map((/** @type {numbers.Slow} */ { name: user }) => ({ [user ?? ""]: 1 })));
  const shown = people.map(([user, count]) => item(`${user || "not signed in"}${count > 1 ? `: ${count} sockets` : ""}`));
  const rest = answer.sockets - answer.shown.length;
  if (!shown.length) shown.push(item("nobody"));
  find("[data-people]").replaceChildren(...shown, ...(rest > 0 ? [item(`and ${rest} sockets more`)] : []));
  const about = answer.size ? `Messages to everybody, the newest first; up to ${answer.size} are kept.` : "This facility keeps no history.";
  setText(find("[data-history-about]"), answer.size && !answer.history.length ? "No message is kept." : about);
  const history = /** @type {{time: number, text: string | null, size: number}[]} */ (answer.history).map((entry) => {
    const [when, text] = [document.createElement("time"), document.createElement("span")];
    when.dateTime = new Date(entry.time * 1000).toISOString();
    when.textContent = new Date(entry.time * 1000).toLocaleString();
    text.textContent = entry.text ?? `(binary, ${numbers.size(entry.size)})`;
    const line = document.createElement("li");
    line.append(when, text);
    return line;
  });
  find("[data-history]").replaceChildren(...history);
});

/** @param {string} text */
function item(text) {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}

/**
 * The page `/inspector/`: opens a socket, shows its events, and sends messages. Each part of the page has a module in
 * inspector/; this one connects them.
 */

import { explain, problemOfClose, REFUSALS } from "./inspector/close-codes.js";
import { counted, describe, duration, roundTrip, size } from "./inspector/format.js";
import { Log } from "./inspector/log.js";
import { enable, find, isEnabled, setText, showProblem } from "./inspector/page.js";
import { PingPanel } from "./inspector/ping-panel.js";
import { Sender } from "./inspector/sender.js";
import { InspectedSocket } from "./inspector/socket.js";
import { fromQuery, parsePasted, problemOf, protocolNames, socketUrl, toQuery } from "./inspector/target.js";

const root = find(document, "[data-inspector]");
const { websocketUrl, heartbeat } = root.dataset;
const mostBytes = Number(root.dataset.maxMessageSize);

// --- the target ------------------------------------------------------------------------------------------------------

const targetForm = find(root, "[data-target]");
const path = find(targetForm, "[name=path]");
const more = find(targetForm, "[name=more]");
const protocol = find(targetForm, "[name=protocol]");
const protocols = find(targetForm, "[name=protocols]");
const urlOutput = find(targetForm, "[data-url]");
/** @type {HTMLInputElement[]} */
const boxes = [...targetForm.querySelectorAll("[data-parameter]")];
const consumers = targetForm.querySelectorAll("[data-consumer]");
const known = boxes.map(({ name }) => name);

/** @returns {import("./inspector/target.js").Target} */
function target() {
  return {
    path: path.value.trim(),
    parameters: boxes.filter(({ checked }) => checked).map(({ name }) => name),
    more: more.value,
    protocols: protocol.value === "other" ? protocolNames(protocols.value) : [protocol.value].filter(Boolean),
  };
}

/** @param {import("./inspector/target.js").Target} target */
function fillIn(target) {
  path.value = target.path;
  more.value = target.more;
  for (const box of boxes) box.checked = target.parameters.includes(box.name);
  const name = target.protocols.join(", ");
  const isListed = [...protocol.options].some(({ value }) => value === name && value !== "other");
  protocol.value = isListed ? name : "other";
  protocols.value = isListed ? "" : name;
}

function showTarget() {
  const pasted = readPasted();
  if (pasted && "problem" in pasted) return showProblem(path, find(targetForm, "#path-error"), pasted.problem);
  const current = { ...target(), ...pasted }; // split already: a pasted URL may contain a token
  find(targetForm, "[data-other-protocols]").hidden = protocol.value !== "other";
  showProblem(path, find(targetForm, "#path-error"), null);
  showProblem(protocols, find(targetForm, "#protocols-error"), null);
  setText(urlOutput, socketUrl(current, websocketUrl, location.href));
  const subscribed = current.parameters.some((name) => name.startsWith("subscribe-"));
  find(targetForm, "[data-nothing-arrives]").hidden = subscribed || looksLikeConsumer(current.path);
  find(targetForm, "[data-chooses-none]").hidden = !current.protocols.length || !looksLikeConsumer(current.path);
}

/** Guesses from the final slash of Django's URLs; for hints only. @param {string} path */
function looksLikeConsumer(path) {
  return path.endsWith("/");
}

function readPasted() {
  return parsePasted(path.value.trim(), websocketUrl, location.href, known);
}

/**
 * Splits a pasted URL into the fields, and writes the fields to the address of the page. Not with each key: browsers
 * limit how often an address may change.
 *
 * @returns {boolean} whether the path can be used
 */
function takeTarget() {
  const pasted = readPasted();
  const isWrong = pasted !== null && "problem" in pasted;
  if (pasted && !isWrong) fillIn({ ...target(), ...pasted });
  showTarget();
  if (!isWrong) history.replaceState(null, "", `?${toQuery(target())}`);
  return !isWrong;
}

// --- the socket ------------------------------------------------------------------------------------------------------

const connectButton = find(targetForm, "[data-connect]");
const closeForm = find(root, "[data-close]");
const disconnectButton = find(closeForm, "[data-disconnect]");
const code = find(closeForm, "[name=code]");
const reason = find(closeForm, "[name=reason]");
const readyState = find(root, "[data-ready-state]");

const log = new Log(find(root, ".log-panel"));
const sender = new Sender(find(root, "[data-send]"), mostBytes, send);
const pings = new PingPanel(
  find(root, "[data-round-trip]"),
  (socket, text) => {
    record(socket, { direction: "out", kind: "json", ping: true, bytes: socket.send(text), text });
    showConnection();
  },
  (socket, text) => record(socket, { direction: "event", kind: "note", ping: true, title: text }),
);

/** @type {InspectedSocket | null} the latest one */
let current = null;
let sockets = 0;
/** @type {string} the description of the close event, until the next socket */
let ended = "";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let watching;

/** @typedef {Omit<import("./inspector/journal.js").Entry, "number" | "time" | "socket" | "ping" | "bytes">} Content */

/** @param {{number: number}} socket @param {Content & {ping?: boolean, bytes?: number | null}} content */
function record(socket, content) {
  log.add({ ping: false, bytes: null, ...content, socket: socket.number });
}

function connect() {
  if (!takeTarget()) return path.focus();
  const wanted = target();
  const problem = problemOf(wanted);
  if (problem) {
    const field = problem.field === "path" ? path : protocols;
    showProblem(field, find(targetForm, `#${problem.field}-error`), problem.text);
    return field.focus();
  }
  if (current && current.state !== "CLOSED") current.close(1000);
  const url = socketUrl(wanted, websocketUrl, location.href);
  sockets += 1;
  ended = "";
  const asked = wanted.protocols.length ? `, subprotocol ${wanted.protocols.join(", ")}` : "";
  record(
    { number: sockets },
    { direction: "event", kind: "note", title: "connecting", more: withoutSecrets(url + asked) },
  );
  try {
    current = new InspectedSocket(sockets, wanted, url, listener);
  } catch (error) {
    current = null;
    ended = "The browser did not connect.";
    record(
      { number: sockets },
      { direction: "event", kind: "error", title: "the browser did not connect", more: String(error) },
    );
  }
  pings.closed();
  watch();
}

/** Removes tokens: the user may show the log to others. @param {string} text */
function withoutSecrets(text) {
  return text.replace(/([?&](?:token|resume)=)[^&\s,]+/gi, "$1…").replace(/(wsloop\.token\.)[^\s,]+/gi, "$1…");
}

const listener = {
  /** @param {InspectedSocket} socket */
  opened(socket) {
    const facts = /** @type {[string, string][]} */ ([
      ["protocol", socket.protocol || "none"],
      ["extensions", socket.extensions || "none"],
      ["handshake", roundTrip(socket.handshake ?? 0)],
    ]);
    record(socket, { direction: "event", kind: "open", title: "the socket is open", facts });
    if (socket === current) pings.opened(socket);
    showConnection();
  },

  /** @param {InspectedSocket} socket @param {string | Uint8Array} data @param {number} bytes */
  received(socket, data, bytes) {
    if (typeof data !== "string") {
      record(socket, { direction: "in", kind: "binary", bytes, data });
      return;
    }
    const milliseconds = pings.answered(socket, data);
    const isPing = milliseconds !== null || isHeartbeat(socket, data);
    const { kind, title } = describe(data);
    const said = milliseconds === null ? title : `round trip ${roundTrip(milliseconds)}`;
    record(socket, { direction: "in", kind, ping: isPing, bytes, text: data, title: said });
  },

  /** @param {InspectedSocket} socket */
  failed(socket) {
    if (socket.openedAt !== null) {
      const explanation = "Browsers do not give scripts the reason. The close event has all that is known.";
      record(socket, { direction: "event", kind: "error", title: "the connection has failed", more: explanation });
      return;
    }
    if (socket.givenUp) {
      record(socket, { direction: "event", kind: "error", title: "cancelled before the socket was open" });
      return;
    }
    const facts = /** @type {[string, string][]} */ ([...REFUSALS]);
    if (socket.target.protocols.length)
      facts.unshift(["101", "the server chose none of the subprotocols, so the browser closed the connection"]);
    record(socket, {
      direction: "event",
      kind: "error",
      title: "the handshake failed",
      more:
        "Browsers do not give scripts the reason: the server was not reached, or it refused with an HTTP status. The " +
        "status is in the browser's developer tools, under Network, and in the server's log.",
      help: {
        title: "Likely reasons, and how to find the right one",
        facts,
        more: "The body of the answer says what to do. curl shows it; add the cookies of the refused user:",
        text: curl(socket.target),
      },
    });
  },

  /** @param {InspectedSocket} socket @param {{code: number, reason: string, wasClean: boolean}} close */
  closed(socket, { code, reason, wasClean }) {
    const { meaning, action } = explain(code);
    const facts = /** @type {[string, string][]} */ ([
      ["meaning", meaning],
      ["what the client does", action],
      ["reason", reason || "none"],
      ["wasClean", String(wasClean)],
      ["open for", socket.duration === null ? "never" : duration(socket.duration)],
    ]);
    record(socket, { direction: "event", kind: "close", title: `closed with ${code}`, facts });
    if (socket === current) {
      ended = `${code}: ${meaning}`;
      pings.closed();
    }
    showConnection();
  },
};

/** Returns whether it only shows that the connection is alive. @param {InspectedSocket} socket @param {string} data */
function isHeartbeat(socket, data) {
  return (heartbeat && data === heartbeat) || (socket.protocol === "wsloop.v1" && data === '{"type": "ping"}');
}

/**
 * @param {import("./inspector/target.js").Target} wanted
 * @returns {string} a command that makes the handshake; without the cookies, which a script cannot read
 */
function curl(wanted) {
  const url = withoutSecrets(socketUrl(wanted, websocketUrl, location.href)).replace(/^ws/, "http");
  const headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
  headers.push("Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", `Origin: ${location.origin}`);
  if (wanted.protocols.length) headers.push(`Sec-WebSocket-Protocol: ${withoutSecrets(wanted.protocols.join(", "))}`);
  headers.push("Cookie: …");
  const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", "'\\''")}'`;
  return ["curl -i --http1.1 --max-time 5", ...headers.map((header) => `-H ${quoted(header)}`), quoted(url)].join(
    " \\\n  ",
  );
}

/** @param {import("./inspector/sender.js").Data} data */
function send(data) {
  if (!current?.isOpen) return;
  const bytes = current.send(data);
  const content = typeof data === "string" ? { text: data, ...describe(data) } : { data, kind: "binary" };
  record(current, { direction: "out", bytes, ...content });
  watch();
}

// --- the state of the socket -----------------------------------------------------------------------------------------

/** Updates the page often while bytes wait to be sent, and four times a second otherwise. */
function watch() {
  showConnection();
  clearTimeout(watching);
  if (current && current.state !== "CLOSED") watching = setTimeout(watch, current.bufferedAmount ? 20 : 250);
}

function showConnection() {
  const state = current?.state ?? (sockets ? "CLOSED" : "not connected yet");
  setText(readyState, state);
  readyState.dataset.readyState = state;
  setText(find(root, "[data-ready-more]"), state === "CLOSED" ? ended : "");
  const dash = (/** @type {number | null | undefined} */ value, /** @type {(value: number) => string} */ format) =>
    value === null || value === undefined ? "–" : format(value);
  const facts = {
    protocol: current?.openedAt ? current.protocol || "none" : "–",
    extensions: current?.openedAt ? current.extensions || "none" : "–",
    buffered: dash(current?.bufferedAmount, (bytes) => `${bytes} bytes`),
    handshake: dash(current?.handshake, roundTrip),
    duration: dash(current?.duration, duration),
    received: current ? traffic(current.received) : "–",
    sent: current ? traffic(current.sent) : "–",
  };
  for (const [name, text] of Object.entries(facts)) setText(find(root, `[data-fact=${name}]`), text);
  const isLive = current !== null && state !== "CLOSED";
  setText(connectButton, isLive ? "Reconnect" : "Connect");
  enable(disconnectButton, isLive && state !== "CLOSING");
  setText(disconnectButton, state === "CONNECTING" ? "Cancel" : "Disconnect");
  setText(find(closeForm, "#disconnect-why"), isLive ? "" : "There is no socket.");
  const why = current?.isOpen ? null : sockets ? `You cannot send: readyState is ${state}.` : "Connect first.";
  sender.allow(why, why === null && current ? hintFor(current) : "");
}

/** @param {InspectedSocket} socket */
function hintFor({ protocol, target: { path, parameters } }) {
  if (protocol === "wsloop.v1") return "needs-frame";
  return looksLikeConsumer(path) || parameters.some((name) => name.startsWith("publish-")) ? "" : "is-ignored";
}

/** @param {{messages: number, bytes: number}} traffic */
function traffic({ messages, bytes }) {
  return `${counted(messages, "message")}, ${size(bytes)}`;
}

// --- the actions of the user -----------------------------------------------------------------------------------------

targetForm.addEventListener("input", showTarget);
path.addEventListener("input", () => {
  if (![...consumers].some(({ value }) => value === path.value.trim())) return;
  // The consumers of the sample choose no subprotocol, and subscribe to nothing. Not at "change": the button would move
  // away under the click that takes the focus from the field.
  protocol.value = "";
  for (const box of boxes) box.checked = false;
});
targetForm.addEventListener("change", takeTarget);
targetForm.addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  connect();
});
closeForm.addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  if (!current || !isEnabled(disconnectButton)) return;
  const typed = code.value.trim();
  const problem = problemOfClose(typed, reason.value);
  const isOfReason = problem?.startsWith("The reason");
  showProblem(reason, find(closeForm, "#close-error"), isOfReason ? problem : null);
  showProblem(code, find(closeForm, "#close-error"), problem);
  if (isOfReason) code.removeAttribute("aria-invalid");
  if (problem) return (isOfReason ? reason : code).focus();
  const sent = typed ? `closing with ${typed}${reason.value && `, “${reason.value}”`}` : "closing without a code";
  record(current, { direction: "event", kind: "note", title: sent });
  current.close(typed ? Number(typed) : undefined, reason.value);
  showConnection();
});
for (const button of targetForm.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = button.dataset.copy === "url" ? urlOutput.textContent : location.href;
    const said = find(targetForm, "[data-copied]");
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied.";
    } catch {
      said.textContent = "The browser does not allow this page to copy; select the text instead.";
    }
  });
}

const shared = fromQuery(location.search, known);
if (shared) fillIn(shared);
showTarget();
showConnection();

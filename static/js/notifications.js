/**
 * One WebSocket that keeps itself connected. It knows the line, not the page: what arrives and how the line is doing
 * is told to the two functions it was given.
 *
 * A line that breaks is opened again after a random time, so that the clients of a server that restarts do not all come
 * back at once. A line on which not even the heartbeat arrives any more is dead, though the browser may not notice for
 * minutes; it is given up and opened again as well.
 */

/**
 * @typedef {{name: "connecting"}
 *   | {name: "connected"}
 *   | {name: "reconnecting", seconds: number, reason?: string}
 *   | {name: "offline", reason: string}} State
 * How the line is doing. "reconnecting": tried again in so many seconds, with the reason if it is the client's fault;
 * "offline": given up for good, and why.
 */

/**
 * @typedef {object} Options
 * @property {(data: string | Blob) => void} onMessage called with each message, but not with heartbeats
 * @property {(state: State) => void} [onState] called whenever the state changes
 * @property {string | null} [heartbeat] the text the server sends every 4 s to show that the line is alive, if it does
 * @property {typeof WebSocket} [WebSocket] for tests
 * @property {() => number} [random] for tests
 */

/** Why a line is given up when its session or token has ended: a new sign-in is the only way to another one. */
export const SIGNED_OUT = "signed out";

/** Close codes after which the server does not want the client back, with what to tell the user. */
const FINAL = new Map([
  [1008, "not allowed"],
  [4001, SIGNED_OUT],
]);
const TOO_MANY = 4029; // close code: the client sent more than it may, and would do so again if it came back at once
const FIRST_DELAY = 2; // seconds within which the first attempt to reconnect is made; doubled with each failure
const LONGEST_DELAY = 30; // seconds
const PATIENCE = 12_000; // milliseconds without an answer, or without three heartbeats, until a line counts as dead

/**
 * Opens a WebSocket and keeps it open until it is closed here, or the server says that the client must not come back.
 *
 * @param {string} url such as "ws://example.com/ws/news?subscribe-broadcast"
 * @param {Options} options
 * @returns {{close: () => void}}
 */
export function connect(url, options) {
  const { onMessage, onState = () => {}, heartbeat = null, random = Math.random } = options;
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const listening = new AbortController();
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} the one thing waited for: a sign of life, or the next attempt */
  let timer;
  let failures = 0;

  function open() {
    clearTimeout(timer);
    const opened = new Socket(url);
    socket = opened;
    timer = setTimeout(reconnect, PATIENCE);
    opened.onopen = () => {
      failures = 0;
      alive();
      onState({ name: "connected" });
    };
    opened.onmessage = ({ data }) => {
      alive();
      if (data !== heartbeat) onMessage(data);
    };
    opened.onclose = ({ code }) => {
      const reason = FINAL.get(code);
      if (reason === undefined) return code === TOO_MANY ? reconnect(FIRST_DELAY, "sent too fast") : reconnect();
      stop();
      onState({ name: "offline", reason });
    };
  }

  function alive() {
    clearTimeout(timer);
    // Without a heartbeat, silence says nothing about the line.
    if (heartbeat !== null) timer = setTimeout(reconnect, PATIENCE);
  }

  /** @param {number} [pause] seconds without an attempt @param {string} [reason] */
  function reconnect(pause = 0, reason) {
    release();
    // Full jitter: any moment from now on is as good as another.
    const seconds = pause + random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    timer = setTimeout(open, seconds * 1000);
    onState({ name: "reconnecting", seconds, ...(reason && { reason }) });
  }

  /** Lets go of the socket without waiting for its closing handshake, which a dead line never finishes. */
  function release() {
    clearTimeout(timer);
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    socket = null;
  }

  function stop() {
    listening.abort();
    release();
  }

  // The network is back: no reason to wait any longer.
  globalThis.addEventListener?.("online", () => socket === null && open(), { signal: listening.signal });
  onState({ name: "connecting" });
  open();
  return { close: stop };
}

/**
 * A WebSocket that comes back, for pages that talk to a consumer: bare messages, without the subprotocol of wsloop.js,
 * whose states and delays it shares. Nothing is kept or sent again here: what was missed is a matter between the page and
 * its consumer, so the URL is asked for before each attempt and can say where to go on.
 */

/**
 * @typedef {{name: "connecting"}
 *   | {name: "connected"}
 *   | {name: "reconnecting", seconds: number, reason?: string}
 *   | {name: "offline", reason: string}} State
 * "reconnecting": tried again in so many seconds, with the reason if the server has given one; "offline": given up for
 * good, and why.
 */

/**
 * @typedef {object} Options
 * @property {() => void} [onOpen] called whenever the line is opened, the first time and after each break
 * @property {(data: string | ArrayBuffer) => void} [onMessage] called with each message
 * @property {(state: State) => void} [onState] called whenever the state changes
 * @property {number} [patience] milliseconds without a message after which an open line counts as dead, which a browser may
 *   not notice for minutes; for consumers that send regularly
 * @property {typeof WebSocket} [WebSocket] for tests
 * @property {() => number} [random] for tests
 */

/**
 * @typedef {object} Line
 * @property {(data: string | ArrayBuffer) => boolean} send false: there is no connection, and nothing was sent
 * @property {() => void} close
 * @property {State} state
 */

/** Why a line is given up when its session has ended: a new sign-in is the only way to another one. */
export const SIGNED_OUT = "signed out";

/** Close codes after which the server does not want the client back, with what to tell the user. */
const FINAL = new Map([
  [1000, "closed by the server"], // the consumer has called close(): it is done
  [1008, "not allowed"],
  [4001, SIGNED_OUT],
]);
const TOO_MANY = 4029; // close code: the client sent more than it may, and would do so again if it came back at once
const FIRST_DELAY = 2; // seconds within which the first attempt to reconnect is made; doubled with each failure
const LONGEST_DELAY = 30; // seconds
const STEADY = 10_000; // milliseconds after which a line works: a consumer may accept, and fail at once, again and again
const PATIENCE = 12_000; // milliseconds until an attempt counts as failed; the server gives a handshake 10 s

/**
 * Opens a line and keeps it open until it is closed here, or the server says that the client must not come back.
 *
 * @param {() => string} url gives an address such as "/ws/random/", or with scheme and host
 * @param {Options} options
 * @returns {Line}
 */
export function open(url, options) {
  const { onOpen = () => {}, onMessage = () => {}, onState = () => {}, patience, random = Math.random } = options;
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const listening = new AbortController();
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let failures = 0;
  let since = Infinity; // when the socket was opened
  /** @type {State} */
  let state = { name: "connecting" };

  /** @param {State} next */
  function tell(next) {
    state = next;
    onState(next);
  }

  function dial() {
    const address = new URL(url(), globalThis.location?.href);
    address.protocol = address.protocol.replace("http", "ws");
    const opened = new Socket(address.href);
    socket = opened;
    opened.binaryType = "arraybuffer";
    wait(PATIENCE);
    opened.onopen = () => {
      since = performance.now();
      wait(patience);
      tell({ name: "connected" });
      onOpen();
    };
    opened.onmessage = ({ data }) => {
      wait(patience); // first of all, because a function of the page may throw
      onMessage(data);
    };
    opened.onclose = ({ code, reason }) => closed(code, reason);
  }

  /** Waits for the next sign of life. @param {number} [milliseconds] none: as long as it takes */
  function wait(milliseconds) {
    clearTimeout(timer);
    if (milliseconds !== undefined) timer = setTimeout(reconnect, milliseconds);
  }

  /** @param {number} code @param {string} reason the server's, or empty */
  function closed(code, reason) {
    const final = FINAL.get(code);
    if (final) {
      close();
      tell({ name: "offline", reason: final === SIGNED_OUT ? final : reason || final });
    } else if (code === TOO_MANY) {
      reconnect("sent too fast", FIRST_DELAY);
    } else {
      reconnect(reason);
    }
  }

  /** @param {string} [reason] @param {number} [least] seconds */
  function reconnect(reason, least = 0) {
    if (performance.now() - since >= STEADY) failures = 0;
    release();
    // Full jitter: any moment from now on is as good as another.
    const seconds = least + random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    timer = setTimeout(dial, seconds * 1000);
    tell({ name: "reconnecting", seconds, ...(reason && { reason }) });
  }

  /** Lets go of the socket without waiting for its closing handshake, which a dead line never finishes. */
  function release() {
    clearTimeout(timer);
    since = Infinity;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    socket = null;
  }

  /** The network is back, or the page: no reason to wait any longer. */
  function hurry() {
    if (socket !== null) return;
    tell({ name: "connecting" });
    dial();
  }

  function close() {
    listening.abort();
    release();
  }

  const { signal } = listening;
  globalThis.addEventListener?.("online", hurry, { signal });
  // A page that is left may be kept, and shown again when the user comes back: not with a line that is open, or dead.
  globalThis.addEventListener?.("pagehide", release, { signal });
  globalThis.addEventListener?.("pageshow", hurry, { signal });
  onState(state);
  dial();
  return {
    send(data) {
      if (socket?.readyState !== 1) return false;
      socket.send(data);
      return true;
    },
    close,
    get state() {
      return state;
    },
  };
}

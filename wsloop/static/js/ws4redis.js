/**
 * `WS4Redis`, the client of ws4redis (django-websocket-redis 0.4.0 to 0.6.0), for the pages that use it: the same path,
 * options and methods, without jQuery. docs/how-to/move-from-ws4redis.rst lists what it does otherwise.
 *
 * A classic script that imports nothing: pages call `WS4Redis` as soon as it is loaded, and sites may concatenate it
 * with other scripts, where the path of a module would lead elsewhere. Its delays and close codes are those of
 * wsloop.js (a test compares the two), which new pages use instead.
 */

/* exported WS4Redis */

/**
 * @typedef {object} WS4RedisOptions
 * @property {string} uri of the facility, such as "ws://example.com/ws/foobar?subscribe-broadcast"
 * @property {string | null} [heartbeat_msg] the text of the heartbeat, WSLOOP["HEARTBEAT"]; null: there is none
 * @property {((data: any) => void) | null} [receive_message] called with the data of each message, heartbeats left out
 * @property {(() => void) | null} [connecting] called before each attempt
 * @property {(() => void) | null} [connected] called when the connection is open
 * @property {((event: CloseEvent) => void) | null} [disconnected] called when an attempt has failed, or the connection
 *   is closed; code 1006: without an answer of the server
 */

/**
 * Opens a connection, and keeps it open until the page closes it, or the server forbids a reconnect. May be called with
 * `new` or without it.
 *
 * @param {WS4RedisOptions} options
 * @param {unknown} [_jQuery] ignored: ws4redis needs it
 */
function WS4Redis(options, _jQuery) {
  "use strict";

  const FIRST_DELAY = 2; // seconds within which the first attempt to reconnect starts; doubled with each failure
  const LONGEST_DELAY = 30; // seconds
  const ATTEMPT_TIMEOUT = 12_000; // milliseconds until an attempt has failed
  const STEADY = 10_000; // milliseconds until an attempt counts as successful: the server may accept and then fail
  const HEARTBEAT_INTERVAL = 5_000; // milliseconds
  const MOST_MISSED = 3; // intervals without a message, after which the connection counts as dead
  const NEVER = [1008, 4001, 4030]; // close codes after which there is no reconnect, beside those from 4500 on
  const LATER = [4029]; // close codes after which it starts FIRST_DELAY later
  const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3]; // of WebSocket.readyState

  if (!options?.uri) throw new Error("No Websocket URI in options");
  const opts = { ...options };
  const listening = new AbortController();
  /** @type {WebSocket | null} the latest; null before that of an attempt is there */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} of the next attempt, of the end of one, or of the heartbeat */
  let timer;
  let failures = 0;
  let missed = 0;
  let openedAt = Infinity;
  let isWaiting = false; // for the next attempt
  let isEnded = false; // there is no further attempt

  /** @param {"connecting" | "connected" | "disconnected" | "receive_message"} name @param {any} [value] */
  function notify(name, value) {
    if (typeof opts[name] === "function") opts[name](value);
  }

  function attempt() {
    clearTimeout(timer);
    isWaiting = false;
    socket = null;
    // Not at once: a page may close the connection before it is used, and browsers warn of a socket closed that early.
    queueMicrotask(dial);
    notify("connecting");
  }

  function dial() {
    if (isEnded) {
      finished(broken());
      return;
    }
    try {
      socket = new WebSocket(opts.uri);
    } catch (error) {
      console.error(`WS4Redis cannot connect to this uri: ${/** @type {Error} */ (error).message}`);
      end(); // a page with https asks for ws, for example: no attempt can succeed
      finished(broken());
      return;
    }
    timer = setTimeout(abandon, ATTEMPT_TIMEOUT);
    socket.onopen = opened;
    socket.onmessage = received;
    socket.onclose = finished;
  }

  function opened() {
    clearTimeout(timer);
    openedAt = performance.now();
    missed = 0;
    if (opts.heartbeat_msg) timer = setTimeout(beat, HEARTBEAT_INTERVAL);
    notify("connected");
  }

  function beat() {
    missed += 1;
    if (missed > MOST_MISSED) {
      console.warn("WS4Redis reconnects: nothing has come from the server, no heartbeat either.");
      abandon();
      return;
    }
    timer = setTimeout(beat, HEARTBEAT_INTERVAL);
    socket?.send(/** @type {string} */ (opts.heartbeat_msg));
  }

  /** @param {MessageEvent} event */
  function received({ data }) {
    missed = 0;
    if (!opts.heartbeat_msg || data !== opts.heartbeat_msg) notify("receive_message", data);
  }

  /** Releases the socket without waiting for its closing handshake, which a dead connection never completes. */
  function abandon() {
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    finished(broken());
  }

  function broken() {
    return new CloseEvent("close", { code: 1006 });
  }

  /** @param {CloseEvent} event */
  function finished(event) {
    if (isEnded || event.code >= 4500 || NEVER.includes(event.code)) end();
    else reconnect(event.code);
    notify("disconnected", event); // which may throw, or close the connection
  }

  /** @param {number} code */
  function reconnect(code) {
    clearTimeout(timer);
    if (performance.now() - openedAt >= STEADY) failures = 0;
    openedAt = Infinity;
    // Full jitter: any moment within the delay, so that the clients of a restarting server do not all come at once.
    const jitter = Math.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    isWaiting = true;
    timer = setTimeout(attempt, (jitter + (LATER.includes(code) ? FIRST_DELAY : 0)) * 1000);
  }

  /** The network is back: no need to wait for the rest of the delay. */
  function hurry() {
    if (isWaiting) attempt();
  }

  /** The browser has kept the page that the user left, and closed its socket; its event would come after this. */
  function restored() {
    if (!isWaiting) abandon();
    hurry();
  }

  function end() {
    isEnded = true;
    isWaiting = false;
    clearTimeout(timer);
    listening.abort();
  }

  function close() {
    end();
    socket?.close();
  }

  /** @param {string | Blob | BufferSource} message discarded without a connection */
  function send_message(message) {
    if (get_state() === CONNECTING) throw new DOMException("Still in CONNECTING state", "InvalidStateError");
    socket?.send(message);
  }

  function get_state() {
    if (socket !== null) return socket.readyState;
    return isEnded ? CLOSED : CONNECTING;
  }

  const { signal } = listening;
  globalThis.addEventListener?.("online", hurry, { signal });
  globalThis.addEventListener?.("pageshow", ({ persisted }) => persisted && restored(), { signal });
  attempt();
  return {
    send_message,
    close,
    get_state,
    is_connecting: () => get_state() === CONNECTING,
    is_connected: () => get_state() === OPEN,
    is_closing: () => get_state() === CLOSING,
    is_closed: () => get_state() === CLOSED,
  };
}

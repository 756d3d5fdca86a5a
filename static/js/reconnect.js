/**
 * A WebSocket that reconnects, for pages that talk to a consumer. It uses the core of wsloop.js, not its subprotocol:
 * messages are bare. It neither stores messages nor sends them again. The page and its consumer recover missed
 * messages: the page returns the URL of each attempt, which can name the last message that it has.
 */

import { CLOSE_CODES, SIGNED_OUT, keepOpen } from "../wsloop/wsloop.js";

export { SIGNED_OUT };

/** @typedef {{name: "connecting"} | {name: "connected"} | import("../wsloop/wsloop.js").Broken} State */

/**
 * @typedef {object} ConsumerOptions
 * @property {() => void} [onOpen] called when the connection is opened, the first time and after each break
 * @property {(data: string | ArrayBuffer) => void} [onMessage] called with each message
 * @property {(state: State) => void} [onState] called when the state changes
 * @property {number} [patience] milliseconds without a message after which an open connection counts as dead; for
 *   consumers that send regularly
 *
 * @typedef {ConsumerOptions & Omit<import("../wsloop/wsloop.js").SocketOptions, "accessToken">} Options
 */

/**
 * @typedef {object} Line
 * @property {(data: string | ArrayBuffer) => boolean} send false: there is no connection, and nothing was sent
 * @property {() => void} close
 * @property {State} state
 */

const DONE = 1000; // close code of a consumer that has called close()
const STEADY = 10_000; // milliseconds until an attempt counts as successful: a consumer may accept and then fail

/**
 * Opens a connection and keeps it open until the page or the consumer closes it, or the server forbids a reconnect.
 *
 * @param {() => string} url returns an address such as "/ws/random/", or one with scheme and host
 * @param {Options} options
 * @returns {Line}
 */
export function open(url, options) {
  const { onOpen = () => {}, onMessage = () => {}, onState = () => {}, patience } = options;
  let openedAt = Infinity;
  /** @type {State} */
  let state = { name: "connecting" };

  /** @param {State} next */
  function tell(next) {
    state = next;
    onState(next);
  }

  const connection = keepOpen(
    {
      url,
      onOpen() {
        openedAt = performance.now();
        connection.expectWithin(patience);
        tell({ name: "connected" });
        onOpen();
      },
      onData: onMessage,
      onClose({ code, reason }) {
        const known = CLOSE_CODES[code];
        if (code === DONE) connection.end(reason || "closed by the server");
        else if (known?.reconnect !== "never") connection.reconnect({ code, reason });
        else connection.end(known.reason === SIGNED_OUT ? SIGNED_OUT : reason || known.reason);
      },
      onRelease() {
        if (performance.now() - openedAt >= STEADY) connection.succeeded();
        openedAt = Infinity;
      },
      onHurry() {
        tell({ name: "connecting" });
      },
      onState: tell,
    },
    options,
  );
  onState(state);
  connection.start();
  return {
    send: connection.send,
    close: connection.close,
    get state() {
      return state;
    },
  };
}

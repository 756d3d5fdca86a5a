/** A WebSocket with all that a script can know about it: states, counters, events. It does not touch the page. */

import { byteLength } from "./format.js";

export const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];

/**
 * @typedef {object} Listener
 * @property {(socket: InspectedSocket) => void} opened
 * @property {(socket: InspectedSocket, data: string | Uint8Array, bytes: number) => void} received
 * @property {(socket: InspectedSocket) => void} failed
 * @property {(socket: InspectedSocket, close: {code: number, reason: string, wasClean: boolean}) => void} closed
 */

export class InspectedSocket {
  received = { messages: 0, bytes: 0 };
  sent = { messages: 0, bytes: 0 };
  /** @type {number | null} */
  openedAt = null;
  /** @type {number | null} */
  closedAt = null;
  givenUp = false; // closed by the page before it was open
  #socket;

  /**
   * @param {number} number of the socket on the page, counted from 1
   * @param {import("./target.js").Target} target
   * @param {string} url of the target
   * @param {Listener} listener
   */
  constructor(number, target, url, listener) {
    this.number = number;
    this.target = target;
    this.startedAt = performance.now();
    this.#socket = new WebSocket(url, target.protocols);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      this.openedAt = performance.now();
      listener.opened(this);
    };
    this.#socket.onmessage = ({ data }) => {
      const content = typeof data === "string" ? data : new Uint8Array(data);
      const bytes = typeof content === "string" ? byteLength(content) : content.length;
      this.received.messages += 1;
      this.received.bytes += bytes;
      listener.received(this, content, bytes);
    };
    this.#socket.onerror = () => listener.failed(this);
    this.#socket.onclose = ({ code, reason, wasClean }) => {
      this.closedAt = performance.now();
      listener.closed(this, { code, reason, wasClean });
    };
  }

  get state() {
    return STATES[this.#socket.readyState];
  }

  get path() {
    return this.target.path;
  }

  get isOpen() {
    return this.state === "OPEN";
  }

  get protocol() {
    return this.#socket.protocol;
  }

  get extensions() {
    return this.#socket.extensions;
  }

  get bufferedAmount() {
    return this.#socket.bufferedAmount;
  }

  /** @returns {number | null} milliseconds between the call and `onopen` */
  get handshake() {
    return this.openedAt === null ? null : this.openedAt - this.startedAt;
  }

  /** @returns {number | null} milliseconds for which it is or was open */
  get duration() {
    return this.openedAt === null ? null : (this.closedAt ?? performance.now()) - this.openedAt;
  }

  /** @param {string | Uint8Array<ArrayBuffer>} data @returns {number} its size in bytes */
  send(data) {
    const bytes = typeof data === "string" ? byteLength(data) : data.length;
    this.#socket.send(data);
    this.sent.messages += 1;
    this.sent.bytes += bytes;
    return bytes;
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code, reason) {
    this.givenUp = this.state === "CONNECTING";
    if (code === undefined) this.#socket.close();
    else this.#socket.close(code, reason);
  }
}

import assert from "node:assert/strict";

/** Stands for the browser's WebSocket. The test says what the server does; subclasses say what a server sends. */
export class FakeSocket {
  /** @type {any[]} */
  static opened = [];

  binaryType = "blob";
  readyState = 0;
  /** @type {any[]} */
  sent = [];
  // What the client sets them to, or null when it has given the socket up.
  /** @type {any} */
  onopen;
  /** @type {any} */
  onmessage;
  /** @type {any} */
  onclose;
  /** @type {any} */
  onerror;

  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    FakeSocket.opened.push(this);
  }

  /** The connection ends. @param {number} code */
  ends(code, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  /** @param {any} data */
  send(data) {
    this.sent.push(data);
  }

  close() {
    this.readyState = 2;
  }
}

/** Speaks to a consumer. */
export class ConsumerSocket extends FakeSocket {
  /** The server lets the client in. */
  opens() {
    this.readyState = 1;
    this.onopen();
  }

  /** @param {any} data */
  says(data) {
    this.onmessage({ data });
  }
}

/** Speaks wsloop.v1, for one facility. */
export class EnvelopeSocket extends FakeSocket {
  get resume() {
    return new URL(this.url).searchParams.get("resume");
  }

  /** The server says something. */
  says(/** @type {string | undefined} */ type, more = {}) {
    this.onmessage({ data: JSON.stringify({ type, ...more }) });
  }

  /** The server lets the client in. */
  welcomes(more = {}) {
    this.readyState = 1;
    this.onopen();
    this.says("welcome", { subscribed: ["broadcast"], recovered: null, token: "TOKEN", ping: 30, ...more });
  }

  /** @override @param {string} text */
  send(text) {
    super.send(JSON.parse(text));
  }
}

/** Speaks wsloop.v1, for the whole page. A client may send several frames in one list. */
export class PageSocket extends EnvelopeSocket {
  /** @type {number[]} numbers of frames of the lists that were sent */
  lists = [];

  /** @override @param {string} text */
  send(text) {
    const frames = JSON.parse(text);
    if (Array.isArray(frames)) this.lists.push(frames.length);
    this.sent.push(...[frames].flat());
  }

  /** The server lets the client in, without any subscription yet. */
  opens() {
    this.welcomes({ facility: "", subscribed: [], token: undefined });
  }

  /** The last frame of a type that the client has sent. @param {string} type @param {object} [wanted] */
  asked(type, wanted = {}) {
    const entries = Object.entries({ type, ...wanted });
    return this.sent.findLast((frame) => entries.every(([key, value]) => frame[key] === value));
  }

  /** The server accepts the last request for a subscription. @param {string} facility @param {object} [more] */
  subscribes(facility, more = {}) {
    const { id } = this.asked("subscribe", { facility });
    this.says("welcome", { id, facility, subscribed: ["user"], recovered: null, token: `T-${facility}`, ...more });
  }

  /** The server refuses it. @param {string} facility @param {string} code */
  refuses(facility, code, reason = "Because.") {
    const { id } = this.asked("subscribe", { facility });
    this.says("error", { id, facility, code, reason });
  }
}

/** What promises have set off has happened. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

export const last = () => FakeSocket.opened.at(-1);
export const count = () => FakeSocket.opened.length;

/**
 * Waits for the next attempt that the last state has announced.
 *
 * @param {import("./clock.js").Clock} clock
 * @param {any[]} states
 */
export function nextAttempt(clock, states) {
  assert.equal(states.at(-1).name, "reconnecting");
  const before = count();
  clock.tick(states.at(-1).seconds * 1000);
  assert.equal(count(), before + 1);
}

/**
 * Close codes after which every client comes back soon.
 *
 * @type {[number, string][]}
 */
export const COMES_BACK = [
  [1001, "the server goes away"],
  [1006, "nobody has said anything"],
  [1011, "the server failed"],
  [1012, "the server restarts"],
  [1013, "the server has too much to do"],
  [4003, "the user has other rights now"],
  [4008, "too slow, or silent"],
];

/**
 * Close codes after which no client comes back, and the reason that it gives.
 *
 * @type {[number, string][]}
 */
export const ENDS = [
  [1008, "not allowed"],
  [4001, "signed out"],
  [4500, "disconnected"],
  [4999, "disconnected"],
];

/**
 * The JavaScript client of wsloop, in one file.
 *
 * - `connect` opens a connection to a facility, with the subprotocol wsloop.v1 (docs/reference/wsloop-v1.rst). It
 *   reconnects, recovers missed messages, and reports those that it cannot recover.
 * - `connectConsumer` opens a connection to a consumer, with plain messages and without a subprotocol. It reconnects.
 * - `keepOpen` is the core of both, which only reconnects.
 * - `CLOSE_CODES` has the meaning of each close code, and when a client reconnects after it.
 *
 * The module does not touch the page. It calls the functions that it is given.
 */

/**
 * @typedef {{name: "connecting"}
 *   | {name: "connected", subscribed: string[], recovered: boolean | null}
 *   | Broken} State
 * The state of a connection. "connected": the server has sent its welcome.
 */

/**
 * @typedef {{name: "reconnecting", seconds: number, reason?: string} | {name: "offline", reason: string}} Broken
 * The state of a broken connection. "reconnecting": the next attempt starts after `seconds`; the reason comes from
 * the server, if it gave one. "offline": there is no further attempt, for this reason.
 */

/**
 * @typedef {object} Message
 * @property {"broadcast" | "user" | "group" | "session" | "other"} audience the audience that it was published to
 * @property {string} [name] of the group
 * @property {string | Uint8Array} data
 * @property {boolean} own whether this connection has published it
 * @property {boolean} kept whether it is the last message from before the connection was opened
 */

/**
 * @typedef {object} Loss
 * @property {string} reason a sentence
 * @property {string} [audience] the audience whose messages were lost; without it, any
 * @property {string} [name] of the group
 */

/**
 * @typedef {{name: "connecting"} | {name: "connected"} | Broken} ConsumerState
 * The state of a connection to a consumer.
 */

/**
 * @typedef {object} ConsumerCallbacks
 * @property {(data: string | ArrayBuffer) => void} [onMessage] called with each message
 * @property {() => void} [onOpen] called when the connection is opened, the first time and after each break
 * @property {(state: ConsumerState) => void} [onState] called when the state changes
 * @property {number} [patience] milliseconds without a message after which an open connection counts as dead; for
 *   consumers that send regularly
 *
 * @typedef {ConsumerCallbacks & Omit<SocketOptions, "accessToken">} ConsumerOptions
 */

/**
 * @typedef {object} ConsumerLine
 * @property {(data: string | ArrayBuffer) => boolean} send returns whether there was a connection; nothing is stored
 * @property {() => void} close
 * @property {ConsumerState} state
 */

/** @typedef {{users: string[], anonymous: number}} Presence the present users, and the number of anonymous ones */
/** @typedef {{event: "join" | "leave", user: string} | {event: "anonymous", count: number}} PresenceChange */

/**
 * @typedef {object} SocketOptions
 * @property {() => string | null | Promise<string | null>} [accessToken] called before each attempt; returns a token
 *   that signs in without a cookie, or null if there is no valid one: the connection then ends as signed out
 * @property {typeof WebSocket} [WebSocket] for tests
 * @property {() => number} [random] for tests
 */

/**
 * @typedef {object} ClientOptions
 * @property {(message: Message) => void} onMessage called with each message, once and in order
 * @property {(state: State) => void} [onState] called when the state changes
 * @property {(loss: Loss) => void} [onLost] called when messages were lost for good: the page must load its state anew
 * @property {(presence: Presence, change?: PresenceChange) => void} [onPresence] called, if the URL has
 *   subscribe-presence, when the connection is opened and with each change
 * @property {string} [token] the positions to start at, from the template tag websocket_token or an earlier connection
 *
 * @typedef {SocketOptions & ClientOptions} Options
 */

/**
 * @typedef {object} Line
 * @property {(data: string | Uint8Array) => Promise<void>} publish fulfilled when Redis has taken the message; rejected
 *   with a {@link PublishError}, after 10 s at the latest
 * @property {() => void} close
 * @property {string} token for the option `token` of a later connection, which then starts at the positions of this
 *   one; empty in facilities without recovery
 */

/**
 * @typedef {{name: string, meaning: string, action: string} & (
 *   {reconnect: "soon"} | {reconnect: "later" | "never", reason: string}
 * )} CloseCode
 * `action`: what a client should do, in the words of docs/reference/websockets.rst. `reconnect`: when `connect`
 * reconnects; "soon" is after a random delay, "later" is 2 s after that. `reason`: that of the connection's state.
 */

/** The reason when a connection ends with its session or token: the user must sign in again. */
export const SIGNED_OUT = "signed out";

/**
 * The close codes that wsloop sends, as in docs/reference/websockets.rst (a test compares the two), and 1008, which a
 * proxy or an application may send. After any other code a client reconnects soon.
 *
 * @type {Record<number, CloseCode>}
 */
export const CLOSE_CODES = {
  1000: {
    name: "NORMAL_CLOSURE",
    meaning: "the answer to the client's own close; or the consumer is finished",
    action: "nothing",
    reconnect: "soon",
  },
  1002: {
    name: "PROTOCOL_ERROR",
    meaning: "the client broke the protocol",
    action: "fix the client",
    reconnect: "soon",
  },
  1007: {
    name: "INVALID_DATA",
    meaning: "text that is not UTF-8, or no JSON where a consumer expects it",
    action: "fix the client",
    reconnect: "soon",
  },
  1008: {
    name: "POLICY_VIOLATION",
    meaning: "not allowed, by a proxy or the application",
    action: "do not reconnect",
    reconnect: "never",
    reason: "not allowed",
  },
  1009: {
    name: "MESSAGE_TOO_BIG",
    meaning: "message over MAX_MESSAGE_SIZE",
    action: "send smaller messages",
    reconnect: "soon",
  },
  1011: {
    name: "INTERNAL_ERROR",
    meaning: "the server's or the site's code failed",
    action: "reconnect later",
    reconnect: "soon",
  },
  1012: {
    name: "SERVICE_RESTART",
    meaning: "the worker restarts",
    action: "reconnect after a random pause. Workers that stop close their sockets over some seconds",
    reconnect: "soon",
  },
  1013: {
    name: "TRY_AGAIN_LATER",
    meaning: "Redis cannot be read, in the middle of a long recovery",
    action: "reconnect after a random pause, with resume",
    reconnect: "soon",
  },
  4001: {
    name: "SIGNED_OUT",
    meaning: "signed out: logout, another password, user not active or deleted; session or token expired",
    action: "do not reconnect; show that the user is signed out. With a token: get a new one first",
    reconnect: "never",
    reason: SIGNED_OUT,
  },
  4003: {
    name: "RIGHTS_CHANGED",
    meaning: "the user's permissions or groups have changed",
    action: "reconnect after a random pause: the server decides the channels anew",
    reconnect: "soon",
  },
  4008: {
    name: "TOO_SLOW",
    meaning: "too slow: more than MAX_QUEUED_BYTES waited, or no answer to a ping in PING_TIMEOUT",
    action: "reconnect after a random pause, with resume. Without history the waiting messages are lost",
    reconnect: "soon",
  },
  4029: {
    name: "TOO_MANY",
    meaning: "more frames, or bytes, than RATE_LIMIT",
    action: "send more slowly, and reconnect, but not at once",
    reconnect: "later", // if it reconnected at once, the client would do the same again
    reason: "sent too fast",
  },
};

const FIRST_DELAY = 2; // seconds within which the first attempt to reconnect starts; doubled with each failure
const LONGEST_DELAY = 30; // seconds
const ATTEMPT_TIMEOUT = 12_000; // milliseconds until an attempt has failed; the server gives a handshake 10 s
const OPEN = 1; // WebSocket.OPEN
const NO_WEBSOCKET =
  "There is no WebSocket here. Node has one from version 22 on; earlier, pass that of the package ws: { WebSocket }.";

/**
 * @typedef {object} Client
 * The functions and data that a client passes to the core. The core calls the functions.
 * @property {() => string} url returns the address of the next attempt: with scheme and host, or relative to the page
 * @property {string[]} [subprotocols]
 * @property {() => void} [onOpen]
 * @property {(data: any) => void} onData called with the data of each message
 * @property {(close: {code: number, reason: string}) => void} onClose called when the socket has closed by itself; must
 *   call `reconnect` or `end`
 * @property {() => void} [onRelease] called when the socket is released, for any reason
 * @property {() => void} [onHurry] called before an attempt that starts at once: the network or the page is back
 * @property {(state: Broken) => void} onState
 */

/**
 * @typedef {object} Connection
 * @property {() => void} start makes the first attempt
 * @property {(data: string | ArrayBuffer) => boolean} send returns whether the socket was open and accepted the data
 * @property {(milliseconds: number | undefined) => void} expectWithin releases the socket and reconnects when
 *   nothing has arrived for that long; undefined: never
 * @property {() => void} succeeded resets the delays between attempts
 * @property {(close?: {code?: number, reason?: string, after?: number}) => void} reconnect schedules the next
 *   attempt by the close code, or after `after` milliseconds
 * @property {(reason: string) => void} end closes the connection for good, with a reason
 * @property {() => void} close closes it for good
 */

/**
 * Keeps a connection open until the page or the client ends it.
 *
 * - There is one timer. It starts the next attempt; or it releases a socket on which nothing has arrived for too long,
 *   because a browser may not notice a dead connection for minutes.
 * - The delay before an attempt is random, so that the clients of a restarting server do not all reconnect at once. Its
 *   upper limit doubles with each failure.
 * - When the network is back, the next attempt starts at once.
 * - The browser may keep a page that the user leaves, and show it again later: its socket is closed meanwhile.
 *
 * @param {Client} client
 * @param {SocketOptions} options
 * @returns {Connection}
 */
export function keepOpen(client, options) {
  const { subprotocols = [], onData, onClose, onOpen, onRelease, onHurry, onState } = client;
  const { accessToken, WebSocket: Socket = globalThis.WebSocket, random = Math.random } = options;
  if (typeof Socket !== "function") throw new Error(NO_WEBSOCKET);
  const listening = new AbortController();
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {number | undefined} milliseconds without a message after which the socket is released */
  let patience;
  let attempts = 0;
  let failures = 0;
  let isIdle = true; // no attempt is under way, and no socket is open

  function attempt() {
    const number = (attempts += 1);
    isIdle = false;
    expectWithin(ATTEMPT_TIMEOUT);
    if (!accessToken) {
      const address = target();
      // Not at once: React's StrictMode opens and closes each connection once before it is used.
      queueMicrotask(() => number === attempts && dial(address, subprotocols));
      return;
    }
    Promise.resolve()
      .then(accessToken)
      .then(
        (token) => {
          if (number !== attempts) return; // the token arrived too late
          if (token) dial(target(), [...subprotocols, `wsloop.token.${token}`]);
          else end(SIGNED_OUT);
        },
        () => number === attempts && reconnect(),
      );
  }

  /** @returns {string} the address of the next attempt */
  function target() {
    const address = new URL(client.url(), globalThis.location?.href);
    address.protocol = address.protocol.replace("http", "ws");
    return address.href;
  }

  /** @param {string} address @param {string[]} protocols */
  function dial(address, protocols) {
    /** @type {WebSocket} */
    let opened;
    try {
      opened = new Socket(address, protocols);
    } catch (error) {
      end(/** @type {Error} */ (error).message); // a page with https asks for ws, for example: no attempt can succeed
      return;
    }
    socket = opened;
    opened.onerror = () => {}; // a close event follows; without this the package ws would end the process
    opened.binaryType = "arraybuffer";
    opened.onopen = () => onOpen?.();
    opened.onmessage = ({ data }) => {
      restartTimer(); // before any function of the page, which may throw
      onData(data);
    };
    opened.onclose = ({ code, reason }) => onClose({ code, reason });
  }

  /** @param {number | undefined} milliseconds */
  function expectWithin(milliseconds) {
    patience = milliseconds;
    restartTimer();
  }

  function restartTimer() {
    clearTimeout(timer);
    if (patience !== undefined) timer = setTimeout(reconnect, patience);
  }

  /** @param {{code?: number, reason?: string, after?: number}} [close] */
  function reconnect({ code = 1006, reason, after } = {}) {
    release();
    const known = CLOSE_CODES[code];
    // Full jitter: any moment within the delay.
    const jitter = random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    let seconds = after === undefined ? jitter : after / 1000;
    if (known?.reconnect === "later") {
      seconds = Math.max(FIRST_DELAY + jitter, (after ?? 0) / 1000);
      reason = known.reason;
    }
    failures += 1;
    timer = setTimeout(attempt, seconds * 1000);
    onState({ name: "reconnecting", seconds, ...(reason && { reason }) });
  }

  /** Releases the socket without waiting for its closing handshake, which a dead connection never completes. */
  function release() {
    clearTimeout(timer);
    attempts += 1;
    isIdle = true;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      socket = null;
    }
    onRelease?.();
  }

  function hurry() {
    onHurry?.();
    if (!signal.aborted) attempt(); // the page may have closed the connection
  }

  function close() {
    listening.abort();
    release();
  }

  /** @param {string} reason */
  function end(reason) {
    close();
    onState({ name: "offline", reason });
  }

  const { signal } = listening;
  globalThis.addEventListener?.("online", () => socket === null && hurry(), { signal });
  globalThis.addEventListener?.("pagehide", release, { signal });
  globalThis.addEventListener?.("pageshow", () => isIdle && hurry(), { signal });
  return {
    start() {
      try {
        attempt();
      } catch (error) {
        close(); // the address is wrong: no later attempt can succeed
        throw error;
      }
    },
    send(data) {
      // A closing socket discards the data.
      if (socket?.readyState !== OPEN) return false;
      socket.send(data);
      return true;
    },
    expectWithin,
    succeeded() {
      failures = 0;
    },
    reconnect,
    end,
    close,
  };
}

const DONE = 1000; // close code of a consumer that has called close()
const STEADY = 10_000; // milliseconds until an attempt counts as successful: a consumer may accept and then fail

/**
 * Opens a connection to a consumer, and keeps it open until the page or the consumer closes it, or the server forbids a
 * reconnect. It neither stores messages nor sends them again: the page and its consumer recover what was missed. For
 * that the page can return the URL of each attempt, which names the last message that it has.
 *
 * @param {string | (() => string)} url such as "/ws/chat/lobby/", with scheme and host or without, or a function that
 *   returns one
 * @param {ConsumerOptions} [options]
 * @returns {ConsumerLine}
 */
export function connectConsumer(url, options = {}) {
  const { onOpen = () => {}, onMessage = () => {}, onState = () => {}, patience } = options;
  let openedAt = Infinity;
  /** @type {ConsumerState} */
  let state = { name: "connecting" };

  /** @param {ConsumerState} next */
  function tell(next) {
    state = next;
    onState(next);
  }

  const connection = keepOpen(
    {
      url: () => (typeof url === "string" ? url : url()),
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

const SUSPICIOUS = 2; // attempts without any welcome after which the console is told what may be wrong
const MOST_IDS = 1000; // number of messages that are remembered
const ANSWER_TIMEOUT = 10_000; // milliseconds within which the server must answer a published message

/**
 * Opens a connection that speaks wsloop.v1, and keeps it open until the page closes it, or the server forbids a
 * reconnect.
 *
 * @param {string} url such as "/ws/news?subscribe-broadcast", or with scheme and host
 * @param {Options} options
 * @returns {Line}
 */
export function connect(url, options) {
  const { onMessage, onState = () => {}, onLost = () => {}, onPresence = () => {} } = options;
  const address = new URL(url, globalThis.location?.href);
  const bookmark = new Bookmark(options.token);
  const publications = new Publications();
  let isReady = false; // the server has sent its welcome, and no goodbye
  let unwelcome = 0; // attempts that have failed before the first welcome
  /** @type {{reconnect?: boolean, after?: number, reason?: string}} the server's goodbye, if it has sent one */
  let goodbye = {};
  /** @type {Attendance | null} */
  let attendance = null;

  const handlers = {
    /** @param {any} frame */
    welcome({ subscribed, recovered, token, ping, presence }) {
      connection.succeeded();
      connection.expectWithin(2 * 1000 * ping);
      isReady = true;
      unwelcome = -Infinity;
      bookmark.renew(token);
      onState({ name: "connected", subscribed, recovered });
      attendance = presence ? new Attendance(presence) : null;
      if (attendance) onPresence(attendance.now());
      if (recovered === false) onLost({ reason: "Missed messages could not be recovered. Load the state anew." });
    },
    /** @param {any} frame */
    message({ audience, name, data, base64, position, own = false, kept = false }) {
      if (position !== undefined && !bookmark.isNew(position)) return;
      onMessage({ audience, ...(name !== undefined && { name }), data: data ?? fromBase64(base64), own, kept });
    },
    /** @param {any} frame */
    presence({ type, ...change }) {
      if (attendance?.apply(change)) onPresence(attendance.now(), change);
    },
    /** @param {any} frame */
    ack({ id }) {
      publications.taken(id);
    },
    /** @param {any} frame */
    error({ code, reason, id, audience, name }) {
      if (id !== undefined) publications.failed(id, new PublishError(code, reason));
      if (code === "lost") onLost({ reason, audience, ...(name !== undefined && { name }) });
    },
    /** @param {any} frame */
    goodbye(frame) {
      goodbye = frame;
      isReady = false;
    },
  };

  const connection = keepOpen(
    {
      url() {
        const target = new URL(address);
        const resume = bookmark.toString();
        if (resume) target.search += `${target.search ? "&" : "?"}resume=${encodeURIComponent(resume)}`;
        return target.href;
      },
      subprotocols: ["wsloop.v1"],
      onData(data) {
        const frame = JSON.parse(data);
        // Before the handlers: if a function of the page throws, the message must not come again.
        if (frame.position !== undefined) bookmark.move(frame.position);
        if (Object.hasOwn(handlers, frame.type)) handlers[/** @type {keyof typeof handlers} */ (frame.type)](frame);
      },
      onClose({ code }) {
        unwelcome += 1;
        if (unwelcome === SUSPICIOUS) {
          const advice = "If a consumer serves it, use connectConsumer(); otherwise the server's log has the reason.";
          // Without the query, which may have a token.
          console.warn(`wsloop: ${address.origin}${address.pathname} refuses a connection with wsloop.v1. ${advice}`);
        }
        const known = CLOSE_CODES[code];
        const isFinal = known?.reconnect === "never";
        const { reconnect = !isFinal, after, reason } = goodbye;
        // The server may accept another token.
        const isRenewable = isFinal && known.reason === SIGNED_OUT && options.accessToken !== undefined;
        if (reconnect || isRenewable) connection.reconnect({ code, after, reason });
        else connection.end((isFinal ? known.reason : reason) ?? `closed with code ${code}`);
      },
      onRelease() {
        isReady = false;
        goodbye = {};
        publications.interrupted();
      },
      onState,
    },
    options,
  );
  onState({ name: "connecting" });
  connection.start();
  return {
    publish: (data) => publications.add(data, (text) => isReady && connection.send(text)),
    close: connection.close,
    get token() {
      return bookmark.toString();
    },
  };
}

/** The positions of the client: the server's token, and the last position of each channel since then. */
class Bookmark {
  /** @type {Map<string, string>} positions by channel */
  #positions = new Map();
  /** @type {Set<string>} ids of the latest messages; a message to several audiences may come again after a break */
  #ids = new Set();
  #token;

  /** @param {string} [token] */
  constructor(token = "") {
    this.#token = token;
  }

  /** @param {string} [token] replaces the earlier token and positions; without it there is no recovery */
  renew(token = "") {
    this.#token = token;
    this.#positions.clear();
  }

  /** @param {string} position */
  move(position) {
    this.#positions.set(position.slice(0, position.indexOf(".")), position);
  }

  /** @param {string} position of a message @returns {boolean} false: it has arrived already, for another audience */
  isNew(position) {
    const id = position.slice(position.lastIndexOf(".") + 1);
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > MOST_IDS) this.#ids.delete(/** @type {string} */ (this.#ids.values().next().value));
    return true;
  }

  /** @returns {string} the value of the parameter `resume`; empty without a token */
  toString() {
    return this.#token && [this.#token, ...this.#positions.values()].join("~");
  }
}

/** The users who are present. */
class Attendance {
  #users;
  #anonymous;

  /** @param {Presence} presence */
  constructor({ users, anonymous }) {
    this.#users = new Set(users);
    this.#anonymous = anonymous;
  }

  /** @param {any} change @returns {boolean} whether the change has had an effect */
  apply({ event, user, count }) {
    const before = this.#anonymous;
    switch (event) {
      case "join":
        return !this.#users.has(user) && Boolean(this.#users.add(user));
      case "leave":
        return this.#users.delete(user);
      case "anonymous":
        this.#anonymous = count;
        return count !== before;
      default:
        return false;
    }
  }

  /** @returns {Presence} */
  now() {
    return { users: [...this.#users].sort(), anonymous: this.#anonymous };
  }
}

/**
 * A message was not published, or may not have been. `code` is "disconnected" (the client has not sent it), "unknown"
 * (no answer arrived: it may have been published or not), or one of the server's: "refused", "unavailable", "frame".
 */
export class PublishError extends Error {
  /** @param {string} code @param {string} reason */
  constructor(code, reason) {
    super(reason);
    this.name = "PublishError";
    this.code = code;
  }
}

/** @typedef {{resolve: () => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>}} Waiting */

/** The published messages without an answer yet. */
class Publications {
  /** @type {Map<number, Waiting>} by id */
  #waiting = new Map();
  #last = 0;

  /** @param {string | Uint8Array} data @param {(text: string) => boolean} send @returns {Promise<void>} */
  add(data, send) {
    const isText = typeof data === "string";
    if (!isText && !(data instanceof Uint8Array)) {
      return Promise.reject(new TypeError("A message must be a text or a Uint8Array; write JSON.stringify(…)."));
    }
    const id = this.#last + 1;
    if (!send(JSON.stringify({ type: "publish", ...(isText ? { data } : { base64: toBase64(data) }), id }))) {
      return Promise.reject(new PublishError("disconnected", "There is no connection: the message was not sent."));
    }
    this.#last = id;
    return new Promise((resolve, reject) => {
      const late = new PublishError("unknown", "No answer arrived: the message may have been published, or not.");
      this.#waiting.set(id, { resolve, reject, timer: setTimeout(() => this.failed(id, late), ANSWER_TIMEOUT) });
    });
  }

  /** @param {number} id */
  taken(id) {
    this.#remove(id)?.resolve();
  }

  /** @param {number} id @param {Error} error */
  failed(id, error) {
    this.#remove(id)?.reject(error);
  }

  /** Rejects all of them: the connection is broken, and no answer will come. */
  interrupted() {
    const reason = "The connection broke before the answer: the message may have been published, or not.";
    for (const id of [...this.#waiting.keys()]) this.failed(id, new PublishError("unknown", reason));
  }

  /** @param {number} id */
  #remove(id) {
    const publication = this.#waiting.get(id);
    clearTimeout(publication?.timer);
    this.#waiting.delete(id);
    return publication;
  }
}

/** @param {string} text @returns {Uint8Array} */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** @param {Uint8Array} bytes @returns {string} */
function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

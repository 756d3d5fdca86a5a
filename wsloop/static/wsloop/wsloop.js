/**
 * A WebSocket that keeps itself connected and loses nothing, or says so: the client's side of the subprotocol wsloop.v1
 * (docs/reference/wsloop-v1.rst). It knows the line, not the page: what arrives and how the line is doing is told to the
 * functions it was given.
 *
 * A line is waiting (a timer runs until the next attempt), opening (a socket is there, its welcome is not), ready (the
 * welcome has come) or over. One timer serves all of it: it ends the wait, or gives up a socket on which nothing has come
 * for too long, which a browser may not notice for minutes. Lines are opened again after a random time, so that the
 * clients of a server that restarts do not all come back at once, and with the token and the positions of what has
 * arrived, so that the server sends what was missed.
 */

/**
 * @typedef {{name: "connecting"}
 *   | {name: "connected", subscribed: string[], recovered: boolean | null}
 *   | {name: "reconnecting", seconds: number, reason?: string}
 *   | {name: "offline", reason: string}} State
 * How the line is doing. "connected": with the welcome of the server; "reconnecting": tried again in so many seconds, with
 * the reason if the server has given one; "offline": given up for good, and why.
 */

/**
 * @typedef {object} Message
 * @property {"broadcast" | "user" | "group" | "session" | "other"} audience whom it was published for
 * @property {string} [name] of the group
 * @property {string | Uint8Array} data
 * @property {boolean} own whether this line has published it itself
 * @property {boolean} kept whether it is the last message from before the line was opened
 */

/**
 * @typedef {object} Loss
 * @property {string} reason a sentence
 * @property {string} [audience] whose messages were lost; of any audience if it is missing
 * @property {string} [name] of the group
 */

/** @typedef {{users: string[], anonymous: number}} Presence who is there, and how many who have not signed in */
/** @typedef {{event: "join" | "leave", user: string} | {event: "anonymous", count: number}} PresenceChange */

/**
 * @typedef {object} Options
 * @property {(message: Message) => void} onMessage called with each message, once and in order
 * @property {(state: State) => void} [onState] called whenever the state changes
 * @property {(loss: Loss) => void} [onLost] called when messages were lost for good: the page's state must be loaded anew
 * @property {(presence: Presence, change?: PresenceChange) => void} [onPresence] called with who is there, if the URL has
 *   subscribe-presence: whenever the line is opened, and with each change
 * @property {string} [token] where to begin: of the template tag websocket_token, or of a line before
 * @property {() => string | null | Promise<string | null>} [accessToken] asked before each attempt for a token that signs
 *   in without a cookie; null: there is none any more, and the line ends as signed out
 * @property {typeof WebSocket} [WebSocket] for tests
 * @property {() => number} [random] for tests
 */

/**
 * @typedef {object} Line
 * @property {(data: string | Uint8Array) => Promise<void>} publish fulfilled when Redis has taken the message; rejected
 *   with a {@link PublishError}, within 10 s at the latest
 * @property {() => void} close
 * @property {string} token for the option of the same name of a later line, which begins where this one has ended; empty
 *   in facilities without recovery
 */

const PROTOCOL = "wsloop.v1";

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
const PATIENCE = 12_000; // milliseconds until a line without a welcome counts as dead; the server gives a handshake 10 s
const MOST_IDS = 1000; // messages that are remembered
const ANSWER = 10_000; // milliseconds within which what was published must be answered

/**
 * Opens a line and keeps it open until it is closed here, or the server says that the client must not come back.
 *
 * @param {string} url such as "/ws/news?subscribe-broadcast", or with scheme and host
 * @param {Options} options
 * @returns {Line}
 */
export function connect(url, options) {
  const { onMessage, onState = () => {}, onLost = () => {}, onPresence = () => {} } = options;
  const { accessToken, random = Math.random } = options;
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  const bookmark = new Bookmark(options.token);
  const publications = new Publications();
  const listening = new AbortController();
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let attempts = 0;
  let failures = 0;
  let patience = PATIENCE;
  let ready = false;
  /** @type {{reconnect?: boolean, after?: number, reason?: string}} the server's goodbye, if it has said one */
  let goodbye = {};
  /** @type {Attendance | null} */
  let attendance = null;

  const handlers = {
    /** @param {any} frame */
    welcome({ subscribed, recovered, token, ping, presence }) {
      failures = 0;
      patience = 2 * 1000 * ping;
      ready = true;
      bookmark.renew(token);
      wait();
      onState({ name: "connected", subscribed, recovered });
      attendance = presence ? new Attendance(presence) : null;
      if (attendance) onPresence(attendance.now());
      if (recovered === false) onLost({ reason: "What was missed cannot be told. Load the state anew." });
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
      ready = false;
    },
  };

  function open() {
    const attempt = (attempts += 1);
    patience = PATIENCE;
    wait();
    if (!accessToken) {
      dial([PROTOCOL]);
      return;
    }
    Promise.resolve().then(accessToken).then(
      (given) => {
        if (attempt !== attempts) return; // it took too long
        if (given) dial([PROTOCOL, `wsloop.token.${given}`]);
        else end(SIGNED_OUT);
      },
      () => attempt === attempts && reconnect(),
    );
  }

  /** @param {string[]} protocols */
  function dial(protocols) {
    const target = new URL(address);
    const resume = bookmark.toString();
    if (resume) target.search += `${target.search ? "&" : "?"}resume=${encodeURIComponent(resume)}`;
    const opened = new Socket(target.href, protocols);
    socket = opened;
    goodbye = {};
    opened.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      // First of all, because a function of the page may throw: that must neither lose the line nor repeat the message.
      wait();
      if (frame.position !== undefined) bookmark.move(frame.position);
      if (Object.hasOwn(handlers, frame.type)) handlers[/** @type {keyof handlers} */ (frame.type)](frame);
    };
    opened.onclose = ({ code }) => closed(code);
  }

  /** Waits for the next sign of life. */
  function wait() {
    clearTimeout(timer);
    timer = setTimeout(reconnect, patience);
  }

  /** @param {number} code */
  function closed(code) {
    const { reconnect: again = !FINAL.has(code), after, reason } = goodbye;
    const renewable = accessToken !== undefined && FINAL.get(code) === SIGNED_OUT; // with another token
    if (!again && !renewable) {
      end(FINAL.get(code) ?? reason ?? `closed with code ${code}`);
    } else if (code === TOO_MANY) {
      reconnect(Math.max(FIRST_DELAY + jitter(), (after ?? 0) / 1000), "sent too fast");
    } else {
      reconnect(after === undefined ? jitter() : after / 1000, reason);
    }
  }

  /** @returns {number} seconds; full jitter: any moment from now on is as good as another */
  function jitter() {
    return random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
  }

  /** @param {number} [seconds] @param {string} [reason] */
  function reconnect(seconds = jitter(), reason) {
    release();
    failures += 1;
    timer = setTimeout(open, seconds * 1000);
    onState({ name: "reconnecting", seconds, ...(reason && { reason }) });
  }

  /** Lets go of the socket without waiting for its closing handshake, which a dead line never finishes. */
  function release() {
    clearTimeout(timer);
    attempts += 1;
    ready = false;
    if (socket !== null) {
      socket.onmessage = socket.onclose = null;
      socket.close();
      socket = null;
    }
    publications.broken();
  }

  function stop() {
    listening.abort();
    release();
  }

  /** @param {string} reason */
  function end(reason) {
    stop();
    onState({ name: "offline", reason });
  }

  // The network is back: no reason to wait any longer.
  const { signal } = listening;
  globalThis.addEventListener?.("online", () => socket === null && open(), { signal });
  // A page that is left may be kept, line and all, and shown again: it is not there meanwhile, and then gets what it missed.
  globalThis.addEventListener?.("pagehide", release, { signal });
  globalThis.addEventListener?.("pageshow", ({ persisted }) => persisted && socket === null && open(), { signal });
  onState({ name: "connecting" });
  open();
  return {
    publish: (data) => publications.add(data, ready ? socket : null),
    close: stop,
    get token() {
      return bookmark.toString();
    },
  };
}

/** How far the client has come: the server's token, and the last position of each channel since. */
class Bookmark {
  /** @type {Map<string, string>} by what names the channel */
  #positions = new Map();
  /** @type {Set<string>} ids of the latest messages: one to several audiences may come again if the line was cut between */
  #ids = new Set();
  #token;

  /** @param {string} [token] */
  constructor(token = "") {
    this.#token = token;
  }

  /** @param {string} [token] stands for all that was there; none: the server offers no recovery */
  renew(token = "") {
    this.#token = token;
    this.#positions.clear();
  }

  /** @param {string} position */
  move(position) {
    this.#positions.set(position.slice(0, position.indexOf(".")), position);
  }

  /** @param {string} position of a message @returns {boolean} whether it has not come before, by way of another audience */
  isNew(position) {
    const id = position.slice(position.lastIndexOf(".") + 1);
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > MOST_IDS) this.#ids.delete(/** @type {string} */ (this.#ids.values().next().value));
    return true;
  }

  /** What the parameter `resume` takes. */
  toString() {
    return this.#token && [this.#token, ...this.#positions.values()].join("~");
  }
}

/** Who is there. */
class Attendance {
  #users;
  #anonymous;

  /** @param {Presence} presence */
  constructor({ users, anonymous }) {
    this.#users = new Set(users);
    this.#anonymous = anonymous;
  }

  /** @param {any} change @returns {boolean} whether it has changed anything */
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
 * Why something was not published, or perhaps not. `code` is "disconnected" (it was not sent), "unknown" (no answer has
 * come: it may have been published or not), or one of the server's: "refused", "unavailable", "frame".
 */
export class PublishError extends Error {
  /** @param {string} code @param {string} reason */
  constructor(code, reason) {
    super(reason);
    this.name = "PublishError";
    this.code = code;
  }
}

/** What was published and is not answered yet. */
class Publications {
  /** @type {Map<number, {resolve: () => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>}>} */
  #waiting = new Map();
  #last = 0;

  /** @param {string | Uint8Array} data @param {WebSocket | null} socket @returns {Promise<void>} */
  add(data, socket) {
    const text = typeof data === "string";
    if (!text && !(data instanceof Uint8Array)) {
      return Promise.reject(new TypeError("What is published is a text or a Uint8Array; write JSON.stringify(…)."));
    }
    // A socket that closes swallows what it is given.
    if (socket === null || socket.readyState !== 1) {
      return Promise.reject(new PublishError("disconnected", "There is no connection: the message was not sent."));
    }
    const id = (this.#last += 1);
    socket.send(JSON.stringify({ type: "publish", ...(text ? { data } : { base64: toBase64(data) }), id }));
    return new Promise((resolve, reject) => {
      const late = new PublishError("unknown", "No answer has come: the message may have been published, or not.");
      this.#waiting.set(id, { resolve, reject, timer: setTimeout(() => this.failed(id, late), ANSWER) });
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

  /** The line has broken: no answer will come any more. */
  broken() {
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

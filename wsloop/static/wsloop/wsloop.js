/**
 * The JavaScript client of wsloop, in one file; `event-stream.js` is loaded where WebSockets do not work.
 *
 * - `connect` opens a connection to one facility, `open` one for all facilities of a page, both with the subprotocol
 *   wsloop.v1 (docs/reference/wsloop-v1.rst). They reconnect, recover missed messages, and report those that they
 *   cannot recover.
 * - `connectConsumer` opens a connection to a consumer, with plain messages and without a subprotocol. It reconnects.
 * - `keepOpen` is the core of all, which only reconnects.
 *
 * The module does not touch the page. It calls the functions that it is given.
 */

/** @typedef {string | Uint8Array} Data a message: text, or bytes if it is not text */

/**
 * @typedef {{name: "connecting"}
 *   | {name: "connected", subscribed: string[], recovered: boolean | null}
 *   | Broken} State
 * The state of a subscription. "connected": the server has sent its welcome.
 */

/** @typedef {{name: "connecting"} | {name: "connected"} | Broken} SocketState The state of a socket. */
/** @typedef {SocketState} ConsumerState The state of a connection to a consumer. */

/**
 * @typedef {{name: "reconnecting", seconds: number, reason?: string} | {name: "offline", reason: string}} Broken
 * The state of a broken connection or subscription. "reconnecting": the next attempt starts after `seconds`; the reason
 * comes from the server, if it gave one. "offline": there is no further attempt, for this reason: `SIGNED_OUT`, or why
 * the server refuses the connection, in a sentence for people.
 */

/**
 * @template [T=Data]
 * @typedef {object} Message
 * @property {"broadcast" | "user" | "group" | "session" | "other"} audience the audience that it was published to
 * @property {string} [name] of the group
 * @property {T} data
 * @property {string} [id] the same for the same message, live and in the history; in facilities with recovery
 * @property {boolean} own whether this connection has published it
 * @property {boolean} kept whether it is the last message from before the connection was opened
 */

/**
 * @typedef {object} Loss
 * @property {string} reason a sentence
 * @property {string} [audience] the audience whose messages were lost; without it, any
 * @property {string} [name] of the group
 */

/** @typedef {{users: string[], anonymous: number}} Presence the present users, and the number of anonymous ones */
/** @typedef {{event: "join" | "leave", user: string} | {event: "anonymous", count: number}} PresenceChange */

/**
 * @typedef {object} SocketOptions
 * @property {() => string | null | Promise<string | null>} [accessToken] called before each attempt; returns a token
 *   that signs in without a cookie, or null if there is no valid one: the connection then ends as signed out
 * @property {boolean} [fallback] whether to use Server-Sent Events while WebSockets do not work; true without it
 * @property {typeof WebSocket} [WebSocket] for tests
 * @property {() => number} [random] for tests
 */

/**
 * @typedef {object} OpenOptions
 * @property {(state: SocketState) => void} [onState] called when the state of the socket changes
 */

/**
 * @template [T=Data]
 * @template [S=unknown]
 * @typedef {object} Options
 * @property {(message: Message<T>) => void} [onMessage] called with each message, once and in order
 * @property {(state: State) => void} [onState] called when the state changes
 * @property {(loss: Loss) => void} [onLost] called when messages were lost for good: the page must load its state anew,
 *   which `load` does
 * @property {(presence: Presence, change?: PresenceChange) => void} [onPresence] called, if the subscription has
 *   presence, when it is opened and with each change
 * @property {(error: unknown) => void} [onError] called when `load` has failed, which is called again later, or
 *   `parse`, whose message is dropped; without it the console shows the error
 * @property {string} [token] the positions to start at, from the template tag websocket_token or an earlier connection
 * @property {(signal: AbortSignal) => Promise<S>} [load] returns the state that messages change. Called when the
 *   subscription starts without positions, and whenever messages were lost for good. It is repeated when it fails or
 *   takes longer than 30 s; the signal tells it that its result is no longer wanted
 * @property {(state: S) => void} [onLoad] called with what `load` has returned, before the messages that came meanwhile
 * @property {Queue} [queue] publishes later what is published without a connection, each message once and in order;
 *   without it `publish` is then rejected
 */

/**
 * @typedef {object} Queue
 * @property {number} most messages that wait
 * @property {number} seconds that a message may wait, at most 86400
 */

/**
 * @template T
 * @typedef {object} Parsing
 * @property {(text: string) => T} parse makes `data` of the text of a message: `JSON.parse`, for example
 */

/** @typedef {{parse?: undefined}} Unparsed */

/**
 * @typedef {object} Scope
 * @property {Audience[]} [audiences] whose messages to receive
 * @property {Audience[]} [publish] the audiences that `publish` publishes to
 * @property {boolean} [presence] whether to receive who is online
 *
 * @typedef {"broadcast" | "user" | "group" | "session"} Audience
 */

/**
 * @template [T=Data]
 * @typedef {object} Members
 * @property {(data: Data) => Promise<void>} publish fulfilled when Redis has taken the message; rejected with a
 *   {@link RequestError}, after 10 s at the latest, or after the time of the queue
 * @property {(page?: {limit?: number, before?: string}) => Promise<History<T>>} history returns the last `limit`
 *   messages of the facility's history, or those before the cursor of an earlier answer
 * @property {() => void} close ends the subscription, without a further callback; that of `connect` with its socket
 * @property {string} token for the option `token` of a later subscription, which then starts at the positions of this
 *   one; empty in facilities without recovery
 * @property {State} state
 */

/**
 * @template [T=Data]
 * @typedef {Readonly<Members<T>> & AsyncIterable<Message<T>>} Subscription
 * `for await` gets each message from its first step on, and ends with the subscription. At most 1000 messages wait for
 * the next step: beyond, the oldest is dropped, and `onLost` called.
 */

/**
 * @template [T=Data]
 * @typedef {object} History
 * @property {Message<T>[]} messages the oldest first
 * @property {string | null} before the cursor for older ones; null if there are none
 */

/**
 * @typedef {object} Answer
 * @property {number} status the HTTP status
 * @property {any} [data] of the response, if that is JSON
 * @property {string} [location] where a redirect leads to
 */

/**
 * @typedef {object} Calls
 * @property {(method: string, path: string, data?: unknown) => Promise<Answer>} call calls a view of the site over the
 *   socket; rejected with a {@link RequestError} if no answer comes
 * @property {() => void} close closes the socket with all subscriptions
 * @property {SocketState} state
 */

/**
 * @typedef {object} Subscribing
 * @property {Subscribe} subscribe starts a subscription to a facility; each facility once at a time
 *
 * @typedef {Readonly<Calls & Subscribing>} Socket
 */

/**
 * The types of `connect` and `subscribe`: without `parse` messages are texts or bytes, whatever type the page names.
 *
 * @template [S=unknown]
 * @typedef {SocketOptions & Options<Data, S> & Unparsed} PlainConnectOptions
 */
/**
 * @template T
 * @template [S=unknown]
 * @typedef {SocketOptions & Options<T, S> & Parsing<T>} ParsingConnectOptions
 */
/**
 * @template [S=unknown]
 * @typedef {Scope & Options<Data, S> & Unparsed} PlainSubscribeOptions
 */
/**
 * @template T
 * @template [S=unknown]
 * @typedef {Scope & Options<T, S> & Parsing<T>} ParsingSubscribeOptions
 */
/**
 * @typedef {{
 *   <_ extends Data, S = unknown>(url: string, options: PlainConnectOptions<S>): Subscription;
 *   <T, S = unknown>(url: string, options: ParsingConnectOptions<T, S>): Subscription<T>;
 * }} Connect
 * @typedef {{
 *   <_ extends Data, S = unknown>(facility: string, options: PlainSubscribeOptions<S>): Subscription;
 *   <T, S = unknown>(facility: string, options: ParsingSubscribeOptions<T, S>): Subscription<T>;
 * }} Subscribe
 */

/**
 * @typedef {object} ConsumerCallbacks
 * @property {(data: string | ArrayBuffer) => void} [onMessage] called with each message
 * @property {() => void} [onOpen] called when the connection is opened, the first time and after each break
 * @property {(state: ConsumerState) => void} [onState] called when the state changes
 * @property {number} [patience] milliseconds without a message after which an open connection counts as dead; for
 *   consumers that send regularly
 *
 * @typedef {ConsumerCallbacks & Omit<SocketOptions, "accessToken" | "fallback">} ConsumerOptions
 */

/**
 * @typedef {object} ConsumerLine
 * @property {(data: string | ArrayBuffer) => boolean} send returns whether there was a connection; nothing is stored
 * @property {() => void} close
 * @property {ConsumerState} state
 */

/** The reason when a connection ends with its session or token: the user must sign in again. */
export const SIGNED_OUT = "signed out";

const REFUSED = 4030; // close code: the server has accepted the socket only to say why it refuses it

/**
 * @typedef {{reconnect: "soon"} | {reconnect: "later" | "never", reason: string}} AfterClose
 * When a client reconnects: "soon" is after a random delay, "later" is 2 s after that. `reason`: that of the state.
 */

/**
 * @param {number} code a close code
 * @returns {AfterClose}
 */
export function afterClose(code) {
  if (code === 4001) return { reconnect: "never", reason: SIGNED_OUT };
  if (code === 1008) return { reconnect: "never", reason: "not allowed" };
  // By the site, also with codes of its own.
  if (code >= 4500) return { reconnect: "never", reason: "disconnected" };
  if (code === REFUSED) return { reconnect: "never", reason: "refused" };
  // If it reconnected at once, the client would do the same again.
  if (code === 4029) return { reconnect: "later", reason: "sent too fast" };
  return { reconnect: "soon" };
}

const FIRST_DELAY = 2; // seconds within which the first attempt to reconnect starts; doubled with each failure
const LONGEST_DELAY = 30; // seconds
const ATTEMPT_TIMEOUT = 12_000; // milliseconds until an attempt has failed; the server gives a handshake 10 s
const OPEN = 1; // WebSocket.OPEN
const NO_WEBSOCKET =
  "There is no WebSocket. Node has one from version 22 on; before, pass { WebSocket } of ws.";

/**
 * @param {number} failures so far
 * @param {() => number} random
 * @returns {number} seconds until the next attempt: with full jitter, any moment within the delay
 */
function pause(failures, random) {
  return random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
}

/**
 * @typedef {object} Client
 * The functions and data that a client passes to the core. The core calls the functions.
 * @property {() => string} url returns the address of the next attempt: with scheme and host, or relative to the page
 * @property {string[]} [subprotocols]
 * @property {object | false} [fallback] the settings of `EventStream`, which takes turns with WebSocket: each gets two
 *   attempts. Without it there are only WebSockets
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
 * - When the network is back, the next attempt starts at once, with a WebSocket.
 * - The browser may keep a page that the user leaves, and show it again later: its socket is closed meanwhile.
 *
 * @param {Client} client
 * @param {SocketOptions} options
 * @returns {Connection}
 */
export function keepOpen(client, options) {
  const { subprotocols = [], fallback, onData, onClose, onOpen, onRelease, onHurry, onState } = client;
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
  /** @type {any} what the next attempt uses: `Socket`, or EventStream */
  let Transport = Socket;
  let vain = 0; // attempts with it, one after the other, that have not succeeded
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
      opened = new Transport(address, protocols, fallback, useSocket);
    } catch (error) {
      end(/** @type {Error} */ (error).message); // a page with https asks for ws, for example: no attempt can succeed
      return;
    }
    socket = opened;
    vain += 1;
    opened.onerror = () => {}; // a close event follows; without this the package ws would end the process
    opened.binaryType = "arraybuffer";
    opened.onopen = () => onOpen?.();
    opened.onmessage = ({ data }) => {
      restartTimer(); // before any function of the page, which may throw
      onData(data);
    };
    opened.onclose = ({ code, reason }) => onClose({ code, reason });
  }

  function useSocket() {
    Transport = Socket;
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
    const known = afterClose(code);
    const jitter = pause(failures, random);
    let seconds = after === undefined ? jitter : after / 1000;
    if (known.reconnect === "later") {
      seconds = Math.max(FIRST_DELAY + jitter, (after ?? 0) / 1000);
      reason = known.reason;
    }
    failures += 1;
    if (fallback && vain > 1) {
      vain = 0;
      if (Transport !== Socket) useSocket();
      // If it cannot be loaded, or not in time, the next attempt uses a WebSocket once more.
      else import("./event-stream.js").then((module) => (Transport = module.EventStream)).catch(() => {});
    }
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
    useSocket();
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
      failures = vain = 0;
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
        const known = afterClose(code);
        if (code === DONE) connection.end(reason || "closed by the server");
        else if (known.reconnect !== "never") connection.reconnect({ code, reason });
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

const SUSPICIOUS = 3; // attempts without any welcome after which the console is told what may be wrong
const MOST_IDS = 1000; // number of messages that are remembered
const MOST_TOGETHER = 30; // frames in one list, which must not become too large for the server
const MOST_WAITING = 1000; // messages that wait for `load`, or for the next step of a loop
const ANSWER_TIMEOUT = 10_000; // milliseconds within which the server must answer
const CALL_TIMEOUT = 60_000; // milliseconds within which a view must answer
const LOAD_TIMEOUT = 30_000; // milliseconds
const KEY_LIFETIME = 86_400; // seconds for which the server remembers the key of a message

/**
 * Subscribes to one facility over a socket of its own, and keeps it open until the page closes it, or the server
 * forbids a reconnect. The URL is such as "/ws/news?subscribe-broadcast", or has scheme and host.
 *
 * @type {Connect}
 */
export const connect = (/** @type {string} */ url, /** @type {any} */ options) => {
  const { subscribe, start } = openSocket(url, options, true);
  const subscription = subscribe(undefined, options);
  start();
  return subscription;
};

/**
 * Opens one socket for all facilities of the page, and keeps it open until the page closes it, or the server forbids a
 * reconnect.
 *
 * @param {string} url such as "/ws/", or with scheme and host
 * @param {SocketOptions & OpenOptions} [options]
 * @returns {Socket}
 */
export function open(url, options = {}) {
  const { socket, start } = openSocket(url, options, false);
  options.onState?.(socket.state);
  start();
  return socket;
}

/**
 * The core of both: passes the frames of one socket on to its subscriptions, and questions to the server.
 *
 * @param {string} url
 * @param {SocketOptions & OpenOptions} options
 * @param {boolean} isSingle whether the URL has the facility of the only subscription, which has no name here
 */
function openSocket(url, options, isSingle) {
  /** @typedef {ReturnType<typeof createSubscriber>} Subscriber */
  const address = new URL(url, globalThis.location?.href);
  /** @type {Map<string | undefined, Subscriber>} by facility */
  const subscribers = new Map();
  /** @type {Map<number, (answer: any) => void>} what is called with the answer to a frame, by its id */
  const questions = new Map();
  let lastId = 0;
  /** @type {object[] | null} frames that are sent together */
  let batch = null;
  let unwelcome = 0; // attempts that have failed before the first welcome
  /** @type {{type?: string, reconnect?: boolean, after?: number, reason?: string}} the server's, if it has sent one */
  let goodbye = {};
  /** @type {SocketState} */
  let state = { name: "connecting" };

  const all = () => [...subscribers.values()];

  /** @param {SocketState} next */
  function tell(next) {
    state = next;
    callAll([() => isSingle || options.onState?.(next), ...all().map(({ follow }) => () => follow(next))]);
  }

  /** @type {Ask} */
  function ask(frame, onAnswer, timeout) {
    const id = lastId + 1;
    const numbered = { ...frame, id };
    if (batch) batch.push(numbered);
    else if (goodbye.type || !connection.send(JSON.stringify(numbered))) return false;
    lastId = id;
    const late = timeout && setTimeout(() => questions.get(id)?.(failure("No answer arrived")), timeout);
    questions.set(id, (answer) => {
      clearTimeout(late);
      questions.delete(id);
      onAnswer?.(answer);
    });
    return true;
  }

  const connection = keepOpen(
    {
      url() {
        const target = new URL(address);
        const resume = subscribers.get(undefined)?.subscription.token;
        if (resume) target.search += `${target.search ? "&" : "?"}resume=${encodeURIComponent(resume)}`;
        return target.href;
      },
      subprotocols: ["wsloop.v1"],
      fallback: options.fallback !== false && { ...options, isSingle },
      onOpen() {
        // Together, so that all that was missed comes in the order of time.
        const frames = (batch = /** @type {object[]} */ ([]));
        for (const { start } of all()) start();
        batch = null;
        while (frames.length) connection.send(JSON.stringify(frames.splice(0, MOST_TOGETHER)));
      },
      onData(data) {
        const frame = JSON.parse(data);
        const { type, id, ping, facility, channel } = frame;
        const answered = questions.get(id);
        if (answered) return answered(frame);
        if (type === "goodbye") goodbye = frame;
        if (type === "welcome" && (isSingle || !facility)) {
          connection.succeeded();
          connection.expectWithin(2 * 1000 * ping);
          unwelcome = -Infinity;
          tell({ name: "connected" });
        }
        const named = subscribers.get(isSingle ? undefined : facility);
        (named ?? all().find(({ has }) => has(channel ?? facility)))?.receive(frame);
      },
      onClose({ code, reason: words }) {
        unwelcome += 1;
        if (unwelcome === SUSPICIOUS) {
          const advice = "If it is a consumer, use connectConsumer(); else the server's log has the reason.";
          // Without the query, which may have a token.
          console.warn(`wsloop: ${address.origin}${address.pathname} refuses wsloop.v1. ${advice}`);
        }
        const known = afterClose(code);
        const isFinal = known.reconnect === "never";
        const { reconnect = !isFinal, after, reason } = goodbye;
        // The server may accept another token.
        const isRenewable = isFinal && known.reason === SIGNED_OUT && options.accessToken !== undefined;
        // The site has words of its own for whom it disconnects, and the server for whom it refuses.
        const said = reason || words;
        const why = (isFinal && (code < REFUSED || !said) ? known.reason : said) || `closed with code ${code}`;
        if (code === REFUSED) {
          console.error(`wsloop: the server refuses ${address.origin}${address.pathname}: ${why}`);
        }
        if (reconnect || isRenewable) connection.reconnect({ code, after, reason });
        else connection.end(why);
      },
      onRelease() {
        goodbye = {};
        for (const { interrupt } of all()) interrupt();
        const broken = failure("The connection broke before the answer");
        for (const answer of [...questions.values()]) answer(broken);
      },
      onHurry: () => tell({ name: "connecting" }),
      onState: tell,
    },
    options,
  );

  /** @param {string | undefined} facility @param {any} settings */
  function subscribe(facility, settings) {
    if (subscribers.has(facility)) throw new Error(`Close the subscription to ${facility} first.`);
    const subscriber = createSubscriber(facility, settings, {
      ask,
      random: options.random ?? Math.random,
      onEnd() {
        subscribers.delete(facility);
        if (isSingle) connection.close();
      },
    });
    subscribers.set(facility, subscriber);
    subscriber.follow(state.name === "connected" ? { name: "connecting" } : state);
    // Not at once: React's StrictMode starts and closes each subscription once before it is used.
    queueMicrotask(() => subscribers.get(facility) === subscriber && subscriber.start());
    return subscriber.subscription;
  }

  const socket = {
    subscribe,
    /** @type {Calls["call"]} */
    async call(method, path, data) {
      const { type: _, id, ...answer } = await request(ask, { type: "call", method, path, data }, CALL_TIMEOUT);
      return answer;
    },
    close() {
      connection.close();
      state = CLOSED;
      for (const { subscription } of all()) subscription.close();
    },
    get state() {
      return state;
    },
  };
  return { subscribe, socket, start: connection.start };
}

/** @type {Broken} */
const CLOSED = { name: "offline", reason: "closed by the page" };

/**
 * @typedef {(frame: object, onAnswer?: (answer: any) => void, timeout?: number) => boolean} Ask
 * Sends a frame with an id. `onAnswer` is called with the answer, or with an error "unknown" when the connection breaks
 * or the milliseconds are over. Returns false if there is no connection.
 */

/** @param {string} reason */
function failure(reason) {
  return { type: "error", code: "unknown", reason: `${reason}: what was asked may have been done, or not.` };
}

/**
 * What `publish`, `history` or `call` asked for was not done, or may not have been. `code`: "disconnected" (the client
 * has not sent it), "unknown" (no answer arrived: it may have been done or not), "full" (too many messages wait in the
 * queue), or one of the server's: "refused", "unavailable", "frame", "internal".
 */
export class RequestError extends Error {
  /** @param {string} code @param {string} reason */
  constructor(code, reason) {
    super(reason);
    this.name = "RequestError";
    this.code = code;
  }
}

const disconnected = () => new RequestError("disconnected", "There was no connection: nothing was sent.");

/** @param {{code: string, reason: string}} frame */
const errorOf = ({ code, reason }) => new RequestError(code, reason);

/** @param {Ask} ask @param {object} frame @param {number} timeout in milliseconds @returns {Promise<any>} the answer */
function request(ask, frame, timeout) {
  return new Promise((resolve, reject) => {
    const wasSent = ask(
      frame,
      (answer) => {
        if (answer.type === "error") reject(errorOf(answer));
        else resolve(answer);
      },
      timeout,
    );
    if (!wasSent) reject(disconnected());
  });
}

/** Calls all of them, though one fails. @param {(() => void)[]} calls */
function callAll(calls) {
  /** @type {unknown[]} */
  const errors = [];
  for (const call of calls) {
    try {
      call();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length) throw errors[0];
}

/**
 * One subscription, and what its socket needs of it.
 *
 * @param {string | undefined} facility undefined: the URL of the socket has it, so that there is no subscribe frame
 * @param {Options<any, any> & Scope & Partial<Parsing<any>>} options
 * @param {{ask: Ask, random: () => number, onEnd: () => void}} socket
 */
function createSubscriber(facility, options, { ask, random, onEnd }) {
  const { audiences, publish, presence, load, parse, queue, onMessage, onState, onLost, onPresence } = options;
  const { onError = console.error } = options;
  const bookmark = new Bookmark(options.token);
  const isSingle = facility === undefined;
  /** @type {Set<{messages: Message<any>[], isBehind: boolean, wake: () => void}>} the loops over the messages */
  const loops = new Set();
  let isAsked = false; // the server has been asked for the subscription, on this connection
  let isReady = false; // it has sent its welcome, and all of its frames concern this subscription
  let isOver = false;
  let readyAt = Infinity;
  let failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} until the next attempt on the open socket */
  let timer;
  /** @type {string[]} labels, or facilities, of the further channels of a site's own subscriber */
  let labels = [];
  /** @type {Attendance | null} */
  let attendance = null;
  /** @type {State} */
  let state = { name: "connecting" };

  /** @type {Ask} */
  const askWhenReady = (frame, ...more) => isReady && ask({ ...frame, facility }, ...more);
  const outbox = queue && createOutbox(queue, askWhenReady, random);
  const loader = load && createLoader(load, { ...options, onError }, deliver, random);

  /** @param {State} next */
  function tell(next) {
    state = next;
    onState?.(next);
  }

  function start() {
    if (isSingle) return;
    const resume = bookmark.toString() || undefined;
    isAsked = ask({ type: "subscribe", facility, audiences, publish, presence, resume }, (answer) => {
      if (answer.type === "welcome") welcome(answer);
      else if (isAsked) failed(answer);
    });
  }

  /** @param {any} frame */
  function welcome(frame) {
    if (isOver) return;
    const { subscribed, recovered } = frame;
    isReady = true;
    readyAt = performance.now();
    labels = frame.other ?? [];
    bookmark.renew(frame.token);
    attendance = frame.presence ? new Attendance(frame.presence) : null;
    outbox?.flush();
    if (recovered !== true) loader?.restart();
    tell({ name: "connected", subscribed, recovered });
    if (attendance) onPresence?.(attendance.now());
    if (recovered === false) onLost?.({ reason: "Missed messages are lost. Load the state anew." });
  }

  /** The server has refused the subscription, or ended it. @param {any} frame */
  function failed({ type, code, reason }) {
    isReady = isAsked = false;
    if (type === "error" && code !== "unavailable" && code !== "internal") {
      end();
      tell({ name: "offline", reason });
      return;
    }
    if (performance.now() - readyAt >= STEADY) failures = 0;
    readyAt = Infinity;
    const seconds = pause(failures, random);
    failures += 1;
    timer = setTimeout(start, seconds * 1000);
    tell({ name: "reconnecting", seconds, reason });
  }

  /** @param {any} frame */
  function receive(frame) {
    if (isSingle && frame.type === "welcome") return welcome(frame);
    if (!isReady) return;
    const { type, facility: _, position, code, reason, audience, name: group, ...change } = frame;
    // First: if a function of the page throws, the message must not come again.
    if (position !== undefined) bookmark.move(position);
    if (type === "message" && (position === undefined || bookmark.isNew(position))) {
      if (!loader?.holds(frame)) deliver(frame);
    }
    if (type === "presence" && attendance?.apply(change)) onPresence?.(attendance.now(), change);
    if (type === "error" && code === "lost") lost({ reason, audience, ...(group !== undefined && { name: group }) });
    if (type === "unsubscribed" && code !== undefined && !isSingle) failed(frame);
  }

  /** @param {Loss} loss */
  function lost(loss) {
    loader?.restart();
    onLost?.(loss);
  }

  /** @param {any} frame @returns {Message<any>[]} the message, or none if it cannot be parsed */
  function read({ audience, name: group, data, base64, position, own = false, kept = false }) {
    try {
      data ??= fromBase64(base64);
      if (parse && typeof data !== "string") throw new TypeError("A binary message cannot be parsed.");
      if (parse) data = parse(data);
    } catch (error) {
      onError(error);
      return [];
    }
    const id = position !== undefined && { id: idOf(position) };
    return [{ audience, ...(group !== undefined && { name: group }), data, ...id, own, kept }];
  }

  /** @param {any} frame */
  function deliver(frame) {
    if (isOver) return;
    for (const message of read(frame)) {
      for (const loop of loops) {
        if (loop.messages.push(message) > MOST_WAITING) {
          loop.messages.shift();
          if (!loop.isBehind) lost({ reason: "The loop is too slow: messages are lost. Load the state anew." });
          loop.isBehind = true;
        }
        loop.wake();
      }
      onMessage?.(message);
    }
  }

  function end() {
    isOver = true;
    isReady = isAsked = false;
    clearTimeout(timer);
    onEnd();
    loader?.close();
    outbox?.close();
    for (const { wake } of loops) wake();
  }

  return {
    start,
    receive,
    /** @param {string} label */
    has: (label) => labels.includes(label),
    interrupt() {
      isReady = isAsked = false;
    },
    /** @param {SocketState} next of the socket */
    follow(next) {
      if (isOver || next.name === "connected") return; // the welcome of the subscription follows
      clearTimeout(timer);
      if (next.name === "offline") end();
      // Nothing may ever connect here: then the page has its state, at least.
      else if (next.name === "reconnecting" && !options.token) loader?.begin();
      tell(next);
    },
    subscription: {
      /** @param {Data} data */
      publish(data) {
        const isText = typeof data === "string";
        if (!isText && !(data instanceof Uint8Array)) {
          return Promise.reject(new TypeError("A message must be a text or a Uint8Array: JSON.stringify()."));
        }
        const frame = { type: "publish", ...(isText ? { data } : { base64: toBase64(data) }) };
        return outbox && !isOver ? outbox.add(frame) : request(askWhenReady, frame, ANSWER_TIMEOUT).then(() => {});
      },
      /** @param {{limit?: number, before?: string}} [page] */
      async history({ limit, before } = {}) {
        const answer = await request(askWhenReady, { type: "history", limit, before }, ANSWER_TIMEOUT);
        return { messages: answer.messages.flatMap(read), before: answer.before };
      },
      close() {
        if (isOver) return;
        if (isAsked) ask({ type: "unsubscribe", facility });
        for (const { messages } of loops) messages.length = 0;
        end();
        state = CLOSED;
      },
      get token() {
        return bookmark.toString();
      },
      get state() {
        return state;
      },
      async *[Symbol.asyncIterator]() {
        const loop = { messages: /** @type {Message<any>[]} */ ([]), isBehind: false, wake() {} };
        loops.add(loop);
        try {
          for (;;) {
            const message = loop.messages.shift();
            if (message) {
              yield message;
              continue;
            }
            loop.isBehind = false;
            if (isOver) return;
            await new Promise((/** @type {(value: void) => void} */ resolve) => (loop.wake = resolve));
          }
        } finally {
          loops.delete(loop);
        }
      },
    },
  };
}

/**
 * Loads the state of the page, and holds messages back meanwhile.
 *
 * @param {(signal: AbortSignal) => Promise<any>} load
 * @param {{onLoad?: (state: any) => void, onError: (error: unknown) => void}} callbacks
 * @param {(frame: any) => void} deliver
 * @param {() => number} random
 */
function createLoader(load, { onLoad, onError }, deliver, random) {
  /** @type {any[] | null} messages that wait until the state is loaded; null: it is */
  let held = null;
  let hasBegun = false;
  let isStale = false; // messages were lost after the load has begun: it may not have what they said
  let failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} until the load has failed, or until the next one */
  let timer;
  let controller = new AbortController();

  function restart() {
    hasBegun = true;
    isStale = held !== null;
    held = []; // the load will have what they say
    if (!isStale) run();
  }

  function run() {
    isStale = false;
    controller = new AbortController();
    const { signal } = controller;
    timer = setTimeout(() => controller.abort(new Error("load() took over 30 s.")), LOAD_TIMEOUT);
    const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    Promise.race([aborted, Promise.resolve(signal).then(load)]).then(loaded, failed);

    /** @param {any} state */
    function loaded(state) {
      clearTimeout(timer);
      if (signal.aborted) return;
      if (isStale) {
        later();
        onLoad?.(state);
        return;
      }
      failures = 0;
      const frames = held ?? [];
      held = null;
      callAll([() => onLoad?.(state), ...frames.map((frame) => () => deliver(frame))]);
    }

    /** @param {unknown} error */
    function failed(error) {
      clearTimeout(timer);
      if (error === CLOSED) return;
      later();
      onError(error);
    }
  }

  function later() {
    timer = setTimeout(run, pause(failures, random) * 1000);
    failures += 1;
  }

  return {
    restart,
    /** Loads the state if it was never loaded. */
    begin() {
      if (!hasBegun) restart();
    },
    /** @param {any} frame @returns {boolean} whether the message waits */
    holds(frame) {
      if (held === null) return false;
      if (held.length === MOST_WAITING) restart();
      held.push(frame);
      return true;
    },
    close() {
      clearTimeout(timer);
      controller.abort(CLOSED);
    },
  };
}

/**
 * Messages on their way to the server, one at a time: each waits for the answer to the one before, so that their order
 * is kept. Without an answer a message is sent again, with the key by which the server knows it.
 *
 * @param {Queue} queue
 * @param {Ask} ask
 * @param {() => number} random
 */
function createOutbox({ most, seconds }, ask, random) {
  if (!(most > 0 && seconds > 0 && seconds <= KEY_LIFETIME)) {
    throw new RangeError("A queue has most, and seconds up to 86400.");
  }
  /**
   * @typedef {object} Entry
   * @property {object} frame
   * @property {number} until milliseconds since 1970
   * @property {boolean} wasSent
   * @property {() => void} resolve
   * @property {(error: Error) => void} reject
   * @property {ReturnType<typeof setTimeout>} [timer]
   */
  /** @type {Set<Entry>} */
  const entries = new Set();
  let isAsking = false;
  let failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} until the first message is sent again */
  let timer;

  /** @param {Entry} entry @param {Error} [error] */
  function settle(entry, error) {
    clearTimeout(entry.timer);
    entries.delete(entry);
    if (error) entry.reject(error);
    else entry.resolve();
  }

  /** @param {Entry} entry */
  function giveUp(entry) {
    settle(entry, entry.wasSent ? errorOf(failure("No answer arrived")) : disconnected());
  }

  function flush() {
    // Timers stand still while the machine sleeps.
    for (const entry of entries) if (entry.until <= Date.now()) giveUp(entry);
    const [entry] = entries;
    if (!entry || isAsking) return;
    isAsking = ask(entry.frame, answered, ANSWER_TIMEOUT);
    entry.wasSent ||= isAsking;

    /** @param {any} answer */
    function answered(answer) {
      isAsking = false;
      clearTimeout(timer);
      if (entries.has(entry) && (answer.code === "unknown" || answer.code === "unavailable")) {
        timer = setTimeout(flush, pause(failures, random) * 1000);
        failures += 1;
        return;
      }
      failures = 0;
      settle(entry, answer.type === "error" ? errorOf(answer) : undefined);
      flush();
    }
  }

  return {
    flush,
    /** @param {object} frame @returns {Promise<void>} */
    add(frame) {
      if (entries.size >= most) return Promise.reject(new RequestError("full", `${most} messages wait already.`));
      return new Promise((resolve, reject) => {
        // crypto.randomUUID() is for pages with https only.
        const key = toBase64(crypto.getRandomValues(new Uint8Array(16)));
        /** @type {Entry} */
        const entry = { frame: { ...frame, key }, until: Date.now() + seconds * 1000, wasSent: false, resolve, reject };
        entry.timer = setTimeout(() => giveUp(entry), seconds * 1000);
        entries.add(entry);
        flush();
      });
    },
    close() {
      for (const entry of entries) giveUp(entry);
      clearTimeout(timer);
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
    const id = idOf(position);
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

/** @param {string} position @returns {string} what identifies the message, in all of its channels */
function idOf(position) {
  return position.slice(position.lastIndexOf(".") + 1);
}

/** @param {string} text @returns {Uint8Array} */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** @param {Uint8Array} bytes @returns {string} */
function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

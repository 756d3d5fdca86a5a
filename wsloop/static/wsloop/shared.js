/**
 * One socket for all components of a page. Components that follow the same facility share one subscription and its
 * messages. `wsloop/react` has hooks for it; it knows no framework itself.
 *
 * `openShared` opens the socket. A subscription starts with the first component that follows its facility, and ends a
 * moment after the last one.
 */

import { RequestError, open } from "./wsloop.js";

/**
 * @import { Data, History, Loss, Message, OpenOptions, Parsing, Presence, Queue, Scope, Socket, SocketOptions,
 *   SocketState, State, Subscription, Unparsed } from "./wsloop.js"
 */

/**
 * @template [T=Data]
 * @typedef {object} Live
 * What is known of a facility. An object never changes: with each change there is another one.
 * @property {readonly Message<T>[]} messages the oldest first
 * @property {Presence | null} presence null until the server has sent it
 * @property {State} state of the subscription
 * @property {Loss | null} loss the last messages that were lost for good, unless `load` has made up for it
 * @property {unknown} error why `load` or `parse` has failed; null when `load` succeeds
 */

/**
 * @template [T=Data]
 * @typedef {{data: T} & Partial<Message<T>>} Earlier
 * A message that `load` returns: one of the history, or any data of the site.
 */

/**
 * @template [T=Data]
 * @typedef {object} Reading
 * @property {number} [limit] how many messages are kept, 100 by default; the oldest are dropped
 * @property {(signal: AbortSignal, history: Subscription<T>["history"]) => Promise<Earlier<T>[]>} [load] returns the
 *   earlier messages, the oldest first, retained ones among them. Called at first, and whenever messages were lost for
 *   good: what it returns replaces all messages. It is repeated when it fails
 * @property {(data: T) => unknown} [key] a message replaces the one with the same key, in its place. Without it the
 *   `id` is the key
 * @property {Queue} [queue] publishes later what is published without a connection
 * @property {(message: Message<T>) => void} [onMessage] called with each message that arrives, and not with those of
 *   `load`
 */

/**
 * @template [T=Data]
 * @typedef {Scope & Reading<T>} FollowOptions
 */

/**
 * @typedef {object} Following
 * @property {() => void} close
 */

/**
 * Without `parse` messages are texts or bytes.
 *
 * @typedef {{
 *   (facility: string, options: FollowOptions & Unparsed, onChange: () => void): Following;
 *   <T>(facility: string, options: FollowOptions<T> & Parsing<T>, onChange: () => void): Following;
 * }} Follow
 */

/**
 * @typedef {object} Sharing
 * @property {Follow} follow shares the subscription to a facility; `onChange` is called when `read` returns another
 *   object. All who follow a facility share its messages, so `parse`, `load`, `key` and `queue` are those of the first
 *   one that has them
 * @property {<T = Data>(facility: string) => Live<T>} read returns what is known of a facility
 * @property {(facility: string, data: Data) => Promise<void>} publish as that of a subscription; somebody must follow
 *   the facility
 * @property {<T = Data>(facility: string, page?: {limit?: number, before?: string}) => Promise<History<T>>} history as
 *   that of a subscription
 * @property {(listener: () => void) => () => void} onState calls the listener when the state of the socket changes;
 *   returns a function that ends that
 * @property {Socket["call"]} call
 * @property {() => void} close closes the socket with all subscriptions
 * @property {SocketState} state of the socket
 *
 * @typedef {Readonly<Sharing>} SharedSocket
 */

const LINGER = 1000; // milliseconds that a subscription outlives its last component: the next page may follow it again
const MOST_MESSAGES = 100;
const EXPLAIN_TIMEOUT = 5000; // milliseconds
const SUSPICIOUS = 2; // attempts without any success after which the server is asked for the reason

/** @type {Live<any>} */
const NOTHING = Object.freeze({
  messages: Object.freeze([]),
  presence: null,
  state: Object.freeze({ name: "connecting" }),
  loss: null,
  error: null,
});

/**
 * Opens one socket for all components of the page, and keeps it open until the page closes it, or the server forbids a
 * reconnect.
 *
 * @param {string} url such as "/ws/", or with scheme and host
 * @param {SocketOptions & OpenOptions} [options]
 * @returns {SharedSocket}
 */
export function openShared(url, options = {}) {
  /** @type {Map<string, ReturnType<typeof createShared>>} by facility */
  const all = new Map();
  /** @type {Set<() => void>} */
  const listeners = new Set();
  let failures = 0; // attempts before the first success
  const socket = open(url, {
    ...options,
    onState(state) {
      if (state.name === "connected") failures = -Infinity;
      if (state.name === "reconnecting" && (failures += 1) === SUSPICIOUS) void explain(url);
      options.onState?.(state);
      for (const listener of [...listeners]) listener();
    },
  });

  /** @param {string} facility */
  async function subscription(facility) {
    await null; // one that has just been followed is subscribed by then
    const found = all.get(facility)?.subscription();
    if (!found) throw new RequestError("disconnected", `Nobody follows ${facility}: nothing was sent.`);
    return found;
  }

  return {
    follow(/** @type {string} */ facility, /** @type {any} */ followed, /** @type {() => void} */ onChange) {
      const { audiences = [], publish = [], presence } = followed;
      if (!audiences.length && !publish.length && !presence) {
        throw new TypeError(`To follow ${facility}, name audiences: { audiences: ["user"] }, for example.`);
      }
      let shared = all.get(facility);
      if (!shared) {
        shared = createShared(socket, facility, () => all.delete(facility));
        all.set(facility, shared);
      }
      return shared.follow(followed, onChange);
    },
    read: (facility) => all.get(facility)?.live() ?? NOTHING,
    publish: async (facility, data) => (await subscription(facility)).publish(data),
    history: async (facility, page) => /** @type {any} */ ((await subscription(facility)).history(page)),
    onState(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    call: socket.call,
    close() {
      for (const shared of [...all.values()]) shared.end();
      socket.close();
      for (const listener of [...listeners]) listener();
    },
    get state() {
      return socket.state;
    },
  };
}

/**
 * One subscription, for all who follow its facility.
 *
 * @param {Socket} socket
 * @param {string} facility
 * @param {() => void} onEnd
 */
function createShared(socket, facility, onEnd) {
  /** @type {Set<{options: FollowOptions<any> & Partial<Parsing<any>>, onChange: () => void}>} */
  const followers = new Set();
  /** @type {Live<any>} */
  let live = NOTHING;
  /** @type {any} */
  const settings = {};
  /** @type {Subscription<any> | undefined} */
  let subscription;
  let scope = ""; // of the subscription, as JSON
  /** @type {ReturnType<typeof setTimeout> | undefined} until the subscription ends, without followers */
  let lingering;

  /** @param {Partial<Live<any>>} part */
  function change(part) {
    live = { ...live, ...part };
    for (const { onChange } of [...followers]) onChange();
  }

  /** Each option is that of the first follower who has it. The subscription keeps those of the last one. */
  function settle() {
    if (!followers.size) return;
    const all = [...followers].map(({ options }) => options);
    const first = (/** @type {"parse" | "load" | "key" | "queue"} */ name) => all.find((each) => each[name])?.[name];
    const limit = Math.max(...all.map((each) => each.limit ?? MOST_MESSAGES));
    const found = { parse: first("parse"), load: first("load"), key: first("key"), queue: first("queue") };
    // One that has left may have been the only one to name it.
    for (const [name, value] of Object.entries(found)) settings[name] = value ?? settings[name];
    settings.limit = limit;
  }

  /** @param {Message<any>[]} messages @param {Message<any>} message @returns {Message<any>[]} */
  function add(messages, message) {
    const { key, limit } = settings;
    const keyOf = (/** @type {Message<any>} */ { data, id }) => (key ? key(data) : id);
    const own = keyOf(message);
    const place = own === undefined ? -1 : messages.findIndex((each) => keyOf(each) === own);
    if (place >= 0) return messages.map((each, number) => (number === place ? message : each));
    return [...messages, message].slice(-limit);
  }

  /** The server sends the retained message with each connection. @param {Message<any>} message */
  function isRepeated({ audience, name, data }) {
    const text = JSON.stringify([audience, name, data]);
    return live.messages.some((each) => JSON.stringify([each.audience, each.name, each.data]) === text);
  }

  /** What all followers need together, and what earlier ones have needed: nothing is taken from the subscription. */
  function needed() {
    const before = scope ? JSON.parse(scope) : { audiences: [], publish: [], presence: false };
    const union = (/** @type {"audiences" | "publish"} */ name) =>
      [...new Set([...before[name], ...[...followers].flatMap(({ options }) => options[name] ?? [])])].sort();
    return {
      audiences: union("audiences"),
      publish: union("publish"),
      presence: before.presence || [...followers].some(({ options }) => options.presence),
      parses: before.parses || settings.parse !== undefined,
      loads: before.loads || settings.load !== undefined,
      queues: before.queues || settings.queue !== undefined,
    };
  }

  function renew() {
    if (!followers.size) return;
    const { parses, loads, queues, ...wanted } = needed();
    const next = JSON.stringify({ ...wanted, parses, loads, queues });
    if (subscription && next === scope) return;
    const hasLoaded = scope !== "" && JSON.parse(scope).loads === loads;
    // It goes on where the narrower one has stopped. What is to be loaded first begins anew.
    const token = hasLoaded ? subscription?.token || undefined : undefined;
    subscription?.close();
    scope = next;
    subscription = /** @type {Subscription<any>} */ (
      socket.subscribe(facility, {
        ...wanted,
        token,
        queue: settings.queue,
        parse: parses ? (/** @type {string} */ text) => settings.parse(text) : /** @type {any} */ (undefined),
        ...(loads && { load, onLoad }),
        onMessage(message) {
          if (message.kept && (loads || isRepeated(message))) return;
          change({ messages: add([...live.messages], message) });
          for (const { options } of [...followers]) options.onMessage?.(message);
        },
        onState: (state) => change({ state }),
        onLost: (loss) => change({ loss }),
        onPresence: (presence) => change({ presence }),
        onError(error) {
          console.error(`wsloop: ${facility}:`, error);
          change({ error });
        },
      })
    );
  }

  /** @param {AbortSignal} signal */
  async function load(signal) {
    const history = (/** @type {object} */ page) => /** @type {Subscription<any>} */ (subscription).history(page);
    return settings.load(signal, history);
  }

  /** @param {Earlier<any>[]} earlier */
  function onLoad(earlier) {
    /** @type {Message<any>[]} */
    let messages = [];
    for (const each of earlier) messages = add(messages, { audience: "other", own: false, kept: true, ...each });
    change({ messages, loss: null, error: null });
  }

  function end() {
    clearTimeout(lingering);
    subscription?.close();
    onEnd();
  }

  return {
    end,
    live: () => live,
    subscription: () => subscription,
    /** @param {FollowOptions<any> & Partial<Parsing<any>>} options @param {() => void} onChange */
    follow(options, onChange) {
      clearTimeout(lingering);
      const follower = { options, onChange };
      followers.add(follower);
      settle();
      queueMicrotask(renew); // with what the other components want that appear at the same time
      return {
        close() {
          if (!followers.delete(follower)) return;
          settle();
          if (!followers.size) lingering = setTimeout(end, LINGER);
        },
      };
    },
  };
}

/**
 * Writes to the console why the server refuses the socket. A browser does not show scripts the answer to a handshake,
 * but it does show that to a command, which is refused for the same reasons.
 *
 * @param {string} url
 */
async function explain(url) {
  try {
    const address = new URL(url, globalThis.location?.href);
    address.protocol = address.protocol.replace("ws", "http");
    const response = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: "[]",
      signal: AbortSignal.timeout(EXPLAIN_TIMEOUT),
    });
    // A refusal is a sentence. Anything else concerns the body.
    if (response.ok || !response.headers.get("Content-Type")?.startsWith("text/plain")) return;
    const place = `${address.origin}${address.pathname}`; // without the query, which may have a token
    console.error(`wsloop: the server refuses ${place} (${response.status}): ${await response.text()}`);
  } catch {
    // Nobody answers, or a page of another site may not read the answer: the log of the server has the reason.
  }
}

/**
 * Hooks for React: the messages of a facility, who is present, a consumer, and the state of the socket.
 *
 * They use the socket of the nearest `<SocketContext value={socket}>`; `openShared` of `wsloop/shared` opens it.
 * Components that use the same facility share one subscription and its messages.
 */

import * as React from "react";

import { connectConsumer } from "./wsloop.js";

const { useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } = React;

/**
 * @import { Data, ConsumerLine, ConsumerOptions, ConsumerState, History, Parsing, Presence, Scope, SocketState, State,
 *   Unparsed } from "./wsloop.js"
 * @import { Context } from "react"
 * @import { FollowOptions, Live, SharedSocket } from "./shared.js"
 */

/**
 * @template [T=Data]
 * @typedef {object} Publishing
 * @property {(data: Data) => Promise<void>} publish as that of a subscription, to the audiences of the option `publish`
 * @property {(page?: {limit?: number, before?: string}) => Promise<History<T>>} history as that of a subscription
 */

/**
 * @template [T=Data]
 * @typedef {Omit<Live<T>, "presence"> & Publishing<T>} Messages
 */

/**
 * Without `parse` messages are texts or bytes, whatever type the page names.
 *
 * @typedef {{
 *   <_ extends Data = Data>(facility: string, options: FollowOptions & Unparsed): Messages;
 *   <T>(facility: string, options: FollowOptions<T> & Parsing<T>): Messages<T>;
 * }} UseMessages
 */

/**
 * @typedef {Presence & {state: State}} PresenceWithState
 */

/**
 * @template [T=string | ArrayBuffer]
 * @typedef {object} UseConsumerOptions
 * @property {number} [limit] how many messages are kept, 100 by default; the oldest are dropped
 * @property {(message: T) => void} [onMessage] called with each message
 * @property {ConsumerOptions["onOpen"]} [onOpen] called when the connection is opened, the first time and after each
 *   break
 * @property {number} [patience] as that of `connectConsumer`, in milliseconds
 */

/**
 * @template [T=string | ArrayBuffer]
 * @typedef {object} Consumer
 * @property {readonly T[]} messages the oldest first
 * @property {ConsumerState} state
 * @property {ConsumerLine["send"]} send returns whether there was a connection; nothing is stored
 */

/**
 * Without `parse` messages are texts or bytes, whatever type the page names. The console shows what `parse` throws, and
 * the message is dropped.
 *
 * @typedef {{
 *   <_ extends string | ArrayBuffer = string>(url: string, options?: UseConsumerOptions & Unparsed): Consumer;
 *   <T>(url: string, options: UseConsumerOptions<T> & Parsing<T>): Consumer<T>;
 * }} UseConsumer
 */

// Django's collectstatic would take a type that is imported in brackets for a module of the site.
/** @type {Context<SharedSocket | null>} */
export const SocketContext = React.createContext(/** @type {SharedSocket | null} */ (null));

const MOST_MESSAGES = 100;

/** @returns {SharedSocket} */
function useSocket() {
  const socket = useContext(SocketContext);
  if (!socket) {
    throw new Error('The hooks of wsloop need <SocketContext value={socket}>, with socket = openShared("/ws/").');
  }
  return socket;
}

/**
 * The messages of a facility, the oldest first, and `publish`.
 *
 * @type {UseMessages}
 */
export const useMessages = (/** @type {string} */ facility, /** @type {any} */ options = {}) => {
  const socket = useSocket();
  const { messages, state, loss, error } = useLive(socket, facility, options);
  const actions = useMemo(
    () => ({
      publish: (/** @type {Data} */ data) => socket.publish(facility, data),
      history: (/** @type {{limit?: number, before?: string}} */ page) => socket.history(facility, page),
    }),
    [socket, facility],
  );
  return /** @type {any} */ ({ messages, state, loss, error, ...actions });
};

/**
 * The users who are present in a facility; nobody until the server has sent them.
 *
 * @param {string} facility
 * @param {Scope} [options] of the subscription, if a policy wants more than presence
 * @returns {PresenceWithState}
 */
export function usePresence(facility, options) {
  const { presence, state } = useLive(useSocket(), facility, { ...options, presence: true });
  return { users: presence?.users ?? [], anonymous: presence?.anonymous ?? 0, state };
}

/**
 * The state of the socket.
 *
 * @returns {SocketState}
 */
export function useSocketState() {
  const socket = useSocket();
  const state = () => socket.state;
  return useSyncExternalStore(socket.onState, state, state);
}

/**
 * Follows a facility as long as the component is mounted.
 *
 * @param {SharedSocket} socket
 * @param {string} facility
 * @param {FollowOptions<any> & Partial<Parsing<any>>} options
 * @returns {Live<any>}
 */
function useLive(socket, facility, options) {
  const latest = useLatest(options);
  const { audiences, publish, presence, limit, queue } = options;
  // A component makes these anew each time that it is rendered, but they are the same.
  const fixed = JSON.stringify({ audiences, publish, presence, limit, queue });
  const follow = useCallback(
    (/** @type {() => void} */ onChange) => {
      const { parse, load, key } = latest.current;
      /** @type {any} */
      const followed = {
        ...JSON.parse(fixed),
        parse: parse && ((/** @type {string} */ text) => (latest.current.parse ?? parse)(text)),
        load:
          load &&
          ((/** @type {AbortSignal} */ signal, /** @type {any} */ history) =>
            (latest.current.load ?? load)(signal, history)),
        key: key && ((/** @type {any} */ data) => (latest.current.key ?? key)(data)),
        onMessage: (/** @type {any} */ message) => latest.current.onMessage?.(message),
      };
      return socket.follow(facility, followed, onChange).close;
    },
    [socket, facility, fixed, latest],
  );
  const read = () => socket.read(facility);
  return useSyncExternalStore(follow, read, read);
}

/**
 * A connection to a consumer, as long as the component is mounted.
 *
 * @type {UseConsumer}
 */
export const useConsumer = (/** @type {string} */ url, /** @type {any} */ options = {}) => {
  const latest = useLatest(options);
  const { patience } = options;
  const line = useRef(/** @type {ConsumerLine | null} */ (null));
  const [state, setState] = useState(/** @type {ConsumerState} */ ({ name: "connecting" }));
  const [messages, setMessages] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    const opened = connectConsumer(url, {
      patience,
      onOpen: () => latest.current.onOpen?.(),
      onState: setState,
      onMessage(data) {
        const { parse, onMessage, limit = MOST_MESSAGES } = latest.current;
        /** @type {any} */
        let message = data;
        try {
          if (parse) message = parse(data);
        } catch (error) {
          console.error(`wsloop: ${url}: a message is dropped, because it cannot be parsed:`, error);
          return;
        }
        setMessages((before) => [...before, message].slice(-limit));
        onMessage?.(message);
      },
    });
    line.current = opened;
    return () => {
      opened.close();
      setMessages([]); // those of another address
    };
  }, [url, patience, latest]);
  const send = useCallback((/** @type {string | ArrayBuffer} */ data) => line.current?.send(data) ?? false, []);
  return { messages, state, send };
};

/** @template T @param {T} value @returns {{current: T}} the value of the last time that the component was rendered */
function useLatest(value) {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}

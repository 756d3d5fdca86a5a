/**
 * One socket for all components of a page. Components that follow the same facility share one subscription and its
 * messages. `wsloop/react` has hooks for it; it knows no framework itself.
 *
 * `openShared` opens the socket. A subscription starts with the first component that follows its facility, and ends a
 * moment after the last one.
 */
import type { Data, History, Loss, Message, OpenOptions, Parsing, Presence, Queue, Scope, Socket, SocketOptions, SocketState, State, Subscription, Unparsed } from "./wsloop.js";
export type Live<T = Data> = {
    /**
     * the oldest first
     */
    messages: readonly Message<T>[];
    /**
     * null until the server has sent it
     */
    presence: Presence | null;
    /**
     * of the subscription
     */
    state: State;
    /**
     * the last messages that were lost for good, unless `load` has made up for it
     */
    loss: Loss | null;
    /**
     * why `load` or `parse` has failed; null when `load` succeeds
     */
    error: unknown;
};
export type Earlier<T = Data> = {
    data: T;
} & Partial<Message<T>>;
export type Reading<T = Data> = {
    /**
     * how many messages are kept, 100 by default; the oldest are dropped
     */
    limit?: number;
    /**
     * returns the
     * earlier messages, the oldest first, retained ones among them. Called at first, and whenever messages were lost for
     * good: what it returns replaces all messages. It is repeated when it fails
     */
    load?: (signal: AbortSignal, history: Subscription<T>["history"]) => Promise<Earlier<T>[]>;
    /**
     * a message replaces the one with the same key, in its place. Without it the
     * `id` is the key
     */
    key?: (data: T) => unknown;
    /**
     * publishes later what is published without a connection
     */
    queue?: Queue;
    /**
     * called with each message that arrives, and not with those of
     * `load`
     */
    onMessage?: (message: Message<T>) => void;
};
export type FollowOptions<T = Data> = Scope & Reading<T>;
export type Following = {
    close: () => void;
};
export type Follow = {
    (facility: string, options: FollowOptions & Unparsed, onChange: () => void): Following;
    <T>(facility: string, options: FollowOptions<T> & Parsing<T>, onChange: () => void): Following;
};
export type Sharing = {
    /**
     * shares the subscription to a facility; `onChange` is called when `read` returns another
     * object. All who follow a facility share its messages, so `parse`, `load`, `key` and `queue` are those of the first
     * one that has them
     */
    follow: Follow;
    /**
     * returns what is known of a facility
     */
    read: <T = Data>(facility: string) => Live<T>;
    /**
     * as that of a subscription; somebody must follow
     * the facility
     */
    publish: (facility: string, data: Data) => Promise<void>;
    /**
     * as
     * that of a subscription
     */
    history: <T = Data>(facility: string, page?: {
        limit?: number;
        before?: string;
    }) => Promise<History<T>>;
    /**
     * calls the listener when the state of the socket changes;
     * returns a function that ends that
     */
    onState: (listener: () => void) => () => void;
    call: Socket["call"];
    /**
     * closes the socket with all subscriptions
     */
    close: () => void;
    /**
     * of the socket
     */
    state: SocketState;
};
export type SharedSocket = Readonly<Sharing>;
/**
 * Opens one socket for all components of the page, and keeps it open until the page closes it, or the server forbids a
 * reconnect.
 *
 * @param {string} url such as "/ws/", or with scheme and host
 * @param {SocketOptions & OpenOptions} [options]
 * @returns {SharedSocket}
 */
export declare function openShared(url: string, options?: SocketOptions & OpenOptions): SharedSocket;

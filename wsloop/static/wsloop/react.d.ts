/**
 * Hooks for React: the messages of a facility, who is present, a consumer, and the state of the socket.
 *
 * They use the socket of the nearest `<SocketContext value={socket}>`; `openShared` of `wsloop/shared` opens it.
 * Components that use the same facility share one subscription and its messages.
 */
import type { Data, ConsumerLine, ConsumerOptions, ConsumerState, History, Parsing, Presence, Scope, SocketState, State, Unparsed } from "./wsloop.js";
import type { Context } from "react";
import type { FollowOptions, Live, SharedSocket } from "./shared.js";
export type Publishing<T = Data> = {
    /**
     * as that of a subscription, to the audiences of the option `publish`
     */
    publish: (data: Data) => Promise<void>;
    /**
     * as that of a subscription
     */
    history: (page?: {
        limit?: number;
        before?: string;
    }) => Promise<History<T>>;
};
export type Messages<T = Data> = Omit<Live<T>, "presence"> & Publishing<T>;
/**
 * Without `parse` messages are texts or bytes, whatever type the page names.
 */
export type UseMessages = {
    <_ extends Data = Data>(facility: string, options: FollowOptions & Unparsed): Messages;
    <T>(facility: string, options: FollowOptions<T> & Parsing<T>): Messages<T>;
};
export type PresenceWithState = Presence & {
    state: State;
};
export type UseConsumerOptions<T = string | ArrayBuffer> = {
    /**
     * how many messages are kept, 100 by default; the oldest are dropped
     */
    limit?: number;
    /**
     * called with each message
     */
    onMessage?: (message: T) => void;
    /**
     * called when the connection is opened, the first time and after each
     * break
     */
    onOpen?: ConsumerOptions["onOpen"];
    /**
     * as that of `connectConsumer`, in milliseconds
     */
    patience?: number;
};
export type Consumer<T = string | ArrayBuffer> = {
    /**
     * the oldest first
     */
    messages: readonly T[];
    state: ConsumerState;
    /**
     * returns whether there was a connection; nothing is stored
     */
    send: ConsumerLine["send"];
};
/**
 * Without `parse` messages are texts or bytes, whatever type the page names. The console shows what `parse` throws, and
 * the message is dropped.
 */
export type UseConsumer = {
    <_ extends string | ArrayBuffer = string>(url: string, options?: UseConsumerOptions & Unparsed): Consumer;
    <T>(url: string, options: UseConsumerOptions<T> & Parsing<T>): Consumer<T>;
};
/**
 * @import { Data, ConsumerLine, ConsumerOptions, ConsumerState, History, Parsing, Presence, Scope, SocketState, State,
 *   Unparsed } from "./wsloop.js"
 * @import { Context } from "react"
 * @import { FollowOptions, Live, SharedSocket } from "./shared.js"
 */
/** @type {Context<SharedSocket | null>} */
export declare const SocketContext: Context<SharedSocket | null>;
/**
 * The messages of a facility, the oldest first, and `publish`.
 *
 * @type {UseMessages}
 */
export declare const useMessages: UseMessages;
/**
 * The users who are present in a facility; nobody until the server has sent them.
 *
 * @param {string} facility
 * @param {Scope} [options] of the subscription, if a policy wants more than presence
 * @returns {PresenceWithState}
 */
export declare function usePresence(facility: string, options?: Scope): PresenceWithState;
/**
 * The state of the socket.
 *
 * @returns {SocketState}
 */
export declare function useSocketState(): SocketState;
/**
 * A connection to a consumer, as long as the component is mounted.
 *
 * @type {UseConsumer}
 */
export declare const useConsumer: UseConsumer;

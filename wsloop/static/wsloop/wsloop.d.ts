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
/**
 * A message: text, or bytes if it is not text
 */
export type Data = string | Uint8Array;
/**
 * The state of a subscription. "connected": the server has sent its welcome.
 */
export type State = {
    name: "connecting";
} | {
    name: "connected";
    subscribed: string[];
    recovered: boolean | null;
} | Broken;
/**
 * The state of a socket.
 */
export type SocketState = {
    name: "connecting";
} | {
    name: "connected";
} | Broken;
/**
 * The state of a connection to a consumer.
 */
export type ConsumerState = SocketState;
/**
 * The state of a broken connection or subscription. "reconnecting": the next attempt starts after `seconds`; the reason
 * comes from the server, if it gave one. "offline": there is no further attempt, for this reason: `SIGNED_OUT`, or why
 * the server refuses the connection, in a sentence for people.
 */
export type Broken = {
    name: "reconnecting";
    seconds: number;
    reason?: string;
} | {
    name: "offline";
    reason: string;
};
export type Message<T = Data> = {
    /**
     * the audience that it was published to
     */
    audience: "broadcast" | "user" | "group" | "session" | "other";
    /**
     * of the group
     */
    name?: string;
    data: T;
    /**
     * the same for the same message, live and in the history; in facilities with recovery
     */
    id?: string;
    /**
     * whether this connection has published it
     */
    own: boolean;
    /**
     * whether it is the last message from before the connection was opened
     */
    kept: boolean;
};
export type Loss = {
    /**
     * a sentence
     */
    reason: string;
    /**
     * the audience whose messages were lost; without it, any
     */
    audience?: string;
    /**
     * of the group
     */
    name?: string;
};
/**
 * The present users, and the number of anonymous ones
 */
export type Presence = {
    users: string[];
    anonymous: number;
};
export type PresenceChange = {
    event: "join" | "leave";
    user: string;
} | {
    event: "anonymous";
    count: number;
};
export type SocketOptions = {
    /**
     * called before each attempt; returns a token
     * that signs in without a cookie, or null if there is no valid one: the connection then ends as signed out
     */
    accessToken?: () => string | null | Promise<string | null>;
    /**
     * whether to use Server-Sent Events while WebSockets do not work; true without it
     */
    fallback?: boolean;
    /**
     * for tests
     */
    WebSocket?: typeof WebSocket;
    /**
     * for tests
     */
    random?: () => number;
};
export type OpenOptions = {
    /**
     * called when the state of the socket changes
     */
    onState?: (state: SocketState) => void;
};
export type Options<T = Data, S = unknown> = {
    /**
     * called with each message, once and in order
     */
    onMessage?: (message: Message<T>) => void;
    /**
     * called when the state changes
     */
    onState?: (state: State) => void;
    /**
     * called when messages were lost for good: the page must load its state anew,
     * which `load` does
     */
    onLost?: (loss: Loss) => void;
    /**
     * called, if the subscription has
     * presence, when it is opened and with each change
     */
    onPresence?: (presence: Presence, change?: PresenceChange) => void;
    /**
     * called when `load` has failed, which is called again later, or
     * `parse`, whose message is dropped; without it the console shows the error
     */
    onError?: (error: unknown) => void;
    /**
     * the positions to start at, from the template tag websocket_token or an earlier connection
     */
    token?: string;
    /**
     * returns the state that messages change. Called when the
     * subscription starts without positions, and whenever messages were lost for good. It is repeated when it fails or
     * takes longer than 30 s; the signal tells it that its result is no longer wanted
     */
    load?: (signal: AbortSignal) => Promise<S>;
    /**
     * called with what `load` has returned, before the messages that came meanwhile
     */
    onLoad?: (state: S) => void;
    /**
     * publishes later what is published without a connection, each message once and in order;
     * without it `publish` is then rejected
     */
    queue?: Queue;
};
export type Queue = {
    /**
     * messages that wait
     */
    most: number;
    /**
     * that a message may wait, at most 86400
     */
    seconds: number;
};
export type Parsing<T> = {
    /**
     * makes `data` of the text of a message: `JSON.parse`, for example
     */
    parse: (text: string) => T;
};
export type Unparsed = {
    parse?: undefined;
};
export type Scope = {
    /**
     * whose messages to receive
     */
    audiences?: Audience[];
    /**
     * the audiences that `publish` publishes to
     */
    publish?: Audience[];
    /**
     * whether to receive who is online
     */
    presence?: boolean;
};
export type Audience = "broadcast" | "user" | "group" | "session";
export type Members<T = Data> = {
    /**
     * fulfilled when Redis has taken the message; rejected with a
     * {@link RequestError}, after 10 s at the latest, or after the time of the queue
     */
    publish: (data: Data) => Promise<void>;
    /**
     * returns the last `limit`
     * messages of the facility's history, or those before the cursor of an earlier answer
     */
    history: (page?: {
        limit?: number;
        before?: string;
    }) => Promise<History<T>>;
    /**
     * ends the subscription, without a further callback; that of `connect` with its socket
     */
    close: () => void;
    /**
     * for the option `token` of a later subscription, which then starts at the positions of this
     * one; empty in facilities without recovery
     */
    token: string;
    state: State;
};
/**
 * `for await` gets each message from its first step on, and ends with the subscription. At most 1000 messages wait for
 * the next step: beyond, the oldest is dropped, and `onLost` called.
 */
export type Subscription<T = Data> = Readonly<Members<T>> & AsyncIterable<Message<T>>;
export type History<T = Data> = {
    /**
     * the oldest first
     */
    messages: Message<T>[];
    /**
     * the cursor for older ones; null if there are none
     */
    before: string | null;
};
export type Answer = {
    /**
     * the HTTP status
     */
    status: number;
    /**
     * of the response, if that is JSON
     */
    data?: any;
    /**
     * where a redirect leads to
     */
    location?: string;
};
export type Calls = {
    /**
     * calls a view of the site over the
     * socket; rejected with a {@link RequestError} if no answer comes
     */
    call: (method: string, path: string, data?: unknown) => Promise<Answer>;
    /**
     * closes the socket with all subscriptions
     */
    close: () => void;
    state: SocketState;
};
export type Subscribing = {
    /**
     * starts a subscription to a facility; each facility once at a time
     */
    subscribe: Subscribe;
};
export type Socket = Readonly<Calls & Subscribing>;
/**
 * The types of `connect` and `subscribe`: without `parse` messages are texts or bytes, whatever type the page names.
 */
export type PlainConnectOptions<S = unknown> = SocketOptions & Options<Data, S> & Unparsed;
export type ParsingConnectOptions<T, S = unknown> = SocketOptions & Options<T, S> & Parsing<T>;
export type PlainSubscribeOptions<S = unknown> = Scope & Options<Data, S> & Unparsed;
export type ParsingSubscribeOptions<T, S = unknown> = Scope & Options<T, S> & Parsing<T>;
export type Connect = {
    <_ extends Data, S = unknown>(url: string, options: PlainConnectOptions<S>): Subscription;
    <T, S = unknown>(url: string, options: ParsingConnectOptions<T, S>): Subscription<T>;
};
export type Subscribe = {
    <_ extends Data, S = unknown>(facility: string, options: PlainSubscribeOptions<S>): Subscription;
    <T, S = unknown>(facility: string, options: ParsingSubscribeOptions<T, S>): Subscription<T>;
};
export type ConsumerCallbacks = {
    /**
     * called with each message
     */
    onMessage?: (data: string | ArrayBuffer) => void;
    /**
     * called when the connection is opened, the first time and after each break
     */
    onOpen?: () => void;
    /**
     * called when the state changes
     */
    onState?: (state: ConsumerState) => void;
    /**
     * milliseconds without a message after which an open connection counts as dead; for
     * consumers that send regularly
     */
    patience?: number;
};
export type ConsumerOptions = ConsumerCallbacks & Omit<SocketOptions, "accessToken" | "fallback">;
export type ConsumerLine = {
    /**
     * returns whether there was a connection; nothing is stored
     */
    send: (data: string | ArrayBuffer) => boolean;
    close: () => void;
    state: ConsumerState;
};
/** The reason when a connection ends with its session or token: the user must sign in again. */
export declare const SIGNED_OUT = "signed out";
/**
 * When a client reconnects: "soon" is after a random delay, "later" is 2 s after that. `reason`: that of the state.
 */
export type AfterClose = {
    reconnect: "soon";
} | {
    reconnect: "later" | "never";
    reason: string;
};
/**
 * @param {number} code a close code
 * @returns {AfterClose}
 */
export declare function afterClose(code: number): AfterClose;
/**
 * The functions and data that a client passes to the core. The core calls the functions.
 */
export type Client = {
    /**
     * returns the address of the next attempt: with scheme and host, or relative to the page
     */
    url: () => string;
    subprotocols?: string[];
    /**
     * the settings of `EventStream`, which takes turns with WebSocket: each gets two
     * attempts. Without it there are only WebSockets
     */
    fallback?: object | false;
    onOpen?: () => void;
    /**
     * called with the data of each message
     */
    onData: (data: any) => void;
    /**
     * called when the socket has closed by itself; must
     * call `reconnect` or `end`
     */
    onClose: (close: {
        code: number;
        reason: string;
    }) => void;
    /**
     * called when the socket is released, for any reason
     */
    onRelease?: () => void;
    /**
     * called before an attempt that starts at once: the network or the page is back
     */
    onHurry?: () => void;
    onState: (state: Broken) => void;
};
export type Connection = {
    /**
     * makes the first attempt
     */
    start: () => void;
    /**
     * returns whether the socket was open and accepted the data
     */
    send: (data: string | ArrayBuffer) => boolean;
    /**
     * releases the socket and reconnects when
     * nothing has arrived for that long; undefined: never
     */
    expectWithin: (milliseconds: number | undefined) => void;
    /**
     * resets the delays between attempts
     */
    succeeded: () => void;
    /**
     * schedules the next
     * attempt by the close code, or after `after` milliseconds
     */
    reconnect: (close?: {
        code?: number;
        reason?: string;
        after?: number;
    }) => void;
    /**
     * closes the connection for good, with a reason
     */
    end: (reason: string) => void;
    /**
     * closes it for good
     */
    close: () => void;
};
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
export declare function keepOpen(client: Client, options: SocketOptions): Connection;
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
export declare function connectConsumer(url: string | (() => string), options?: ConsumerOptions): ConsumerLine;
/**
 * Subscribes to one facility over a socket of its own, and keeps it open until the page closes it, or the server
 * forbids a reconnect. The URL is such as "/ws/news?subscribe-broadcast", or has scheme and host.
 *
 * @type {Connect}
 */
export declare const connect: Connect;
/**
 * Opens one socket for all facilities of the page, and keeps it open until the page closes it, or the server forbids a
 * reconnect.
 *
 * @param {string} url such as "/ws/", or with scheme and host
 * @param {SocketOptions & OpenOptions} [options]
 * @returns {Socket}
 */
export declare function open(url: string, options?: SocketOptions & OpenOptions): Socket;
export type Ask = (frame: object, onAnswer?: (answer: any) => void, timeout?: number) => boolean;
/**
 * What `publish`, `history` or `call` asked for was not done, or may not have been. `code`: "disconnected" (the client
 * has not sent it), "unknown" (no answer arrived: it may have been done or not), "full" (too many messages wait in the
 * queue), or one of the server's: "refused", "unavailable", "frame", "internal".
 */
export declare class RequestError extends Error {
    code: string;
    /** @param {string} code @param {string} reason */
    constructor(code: string, reason: string);
}

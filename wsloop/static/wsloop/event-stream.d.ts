/**
 * Server-Sent Events and POST in place of a WebSocket, for networks that block those. `wsloop.js` loads this module
 * when two attempts with a WebSocket have failed, and uses its class as it uses WebSocket.
 *
 * How it works. A source brings frames to this client: a stream, or a WebSocket on trial. The first stream asks for
 * the subscriptions that the client has asked for so far. When the client subscribes to more, or to less, a second
 * stream asks for all that is wanted then, from the positions that were reached. When its subscriptions have begun,
 * both are read for a moment: what the second one brings of subscriptions that were open before is held. Then the
 * older one ends, and what it has not brought is delivered. So nothing is lost, comes twice, or in another order. A
 * WebSocket that opens while a stream works takes over in the same way. Whatever else happens ends all sources, and
 * the client connects anew.
 *
 * It must not import another module: storages that put a hash of the content into the names of files cannot resolve
 * two modules that import each other.
 */
export type Entry = {
    /**
     * the client's, which asks for it; that of the only subscription of a URL has none
     */
    frame?: any;
    /**
     * whether the server has sent its welcome
     */
    isOpen: boolean;
    /**
     * of the welcome, or that to start with
     */
    token: string;
    /**
     * since then, by channel
     */
    positions: Map<string, string>;
};
export type Source = {
    /**
     * what it has asked for, by facility
     */
    entries: Map<string | undefined, Entry>;
    /**
     * those that the server has not answered
     */
    waiting: Set<Entry>;
    /**
     * those that were open before
     */
    resumed: Set<Entry>;
    /**
     * frames that wait for the end of the older source
     */
    held: {
        text: string;
        at: number;
    }[];
    /**
     * whether all were answered
     */
    isReady: boolean;
    /**
     * without it, it is a stream
     */
    socket?: WebSocket;
    /**
     * the server's, or undefined
     */
    goodbye: any;
    close: () => void;
    /**
     * until it has failed
     */
    timer?: ReturnType<typeof setTimeout>;
};
export type Close = {
    code: number;
    reason?: string;
    goodbye?: any;
};
export type Settings = {
    /**
     * whether the URL has the facility of the only subscription
     */
    isSingle: boolean;
    WebSocket?: typeof WebSocket;
    random?: () => number;
};
/** Has the interface of WebSocket, as far as the client uses that. */
export declare class EventStream {
    #private;
    binaryType: string;
    /** @type {(() => void) | null} */
    onopen: (() => void) | null;
    /** @type {((event: {data: any}) => void) | null} */
    onmessage: ((event: {
        data: any;
    }) => void) | null;
    /** @type {((event: {code: number, reason: string}) => void) | null} */
    onclose: ((event: {
        code: number;
        reason: string;
    }) => void) | null;
    /** @type {(() => void) | null} */
    onerror: (() => void) | null;
    /**
     * @param {string} url as of the WebSocket
     * @param {string[]} protocols likewise
     * @param {Settings} settings
     * @param {() => void} back called when a WebSocket has taken over
     */
    constructor(url: string, protocols: string[], settings: Settings, back: () => void);
    get readyState(): number;
    /** @param {string} data */
    send(data: string): void;
    close(): void;
}

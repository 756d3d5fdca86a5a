/**
 * What each close code means, and what a client does after it: for pages that explain closes, such as the inspector of
 * the sample site. The client itself does not load this file.
 */
export type AfterClose = import("./wsloop.js").AfterClose;
/**
 * `action`: what a client should do, in the words of docs/reference/websockets.rst; the rest is what this client does.
 */
export type CloseCode = {
    name: string;
    meaning: string;
    action: string;
} & AfterClose;
/**
 * The close codes that wsloop sends, as in docs/reference/websockets.rst (a test compares the two), and 1008, which a
 * proxy or an application may send.
 *
 * @type {Record<number, CloseCode>}
 */
export declare const CLOSE_CODES: Record<number, CloseCode>;

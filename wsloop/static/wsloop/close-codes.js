/**
 * What each close code means, and what a client does after it: for pages that explain closes, such as the inspector of
 * the sample site. The client itself does not load this file.
 */

import { afterClose } from "./wsloop.js";

/** @type {Record<number, {name: string, meaning: string, action: string}>} */
const TEXTS = {
  1000: {
    name: "NORMAL_CLOSURE",
    meaning: "the answer to the client's own close; or the consumer is finished",
    action: "nothing",
  },
  1002: {
    name: "PROTOCOL_ERROR",
    meaning: "the client broke the protocol",
    action: "fix the client",
  },
  1007: {
    name: "INVALID_DATA",
    meaning: "text that is not UTF-8, or no JSON where a consumer expects it",
    action: "fix the client",
  },
  1008: {
    name: "POLICY_VIOLATION",
    meaning: "not allowed, by a proxy or the application",
    action: "do not reconnect",
  },
  1009: {
    name: "MESSAGE_TOO_BIG",
    meaning: "message over MAX_MESSAGE_SIZE",
    action: "send smaller messages",
  },
  1011: {
    name: "INTERNAL_ERROR",
    meaning: "the server's or the site's code failed",
    action: "reconnect later",
  },
  1012: {
    name: "SERVICE_RESTART",
    meaning: "the worker restarts",
    action: "reconnect after a random pause. Workers that stop close their sockets over some seconds",
  },
  1013: {
    name: "TRY_AGAIN_LATER",
    meaning: "Redis cannot be read, in the middle of a long recovery",
    action: "reconnect after a random pause, with resume",
  },
  4001: {
    name: "SIGNED_OUT",
    meaning: "signed out: logout, another password, user not active or deleted; session or token expired or invalid",
    action: "do not reconnect; show that the user is signed out. With a token: get a new one first",
  },
  4003: {
    name: "RIGHTS_CHANGED",
    meaning: "the user's permissions or groups have changed",
    action: "reconnect after a random pause: the server decides the channels anew",
  },
  4008: {
    name: "TOO_SLOW",
    meaning: "too slow: more than MAX_QUEUED_BYTES waited, or no answer to a ping in PING_TIMEOUT",
    action: "reconnect after a random pause, with resume. Without history the waiting messages are lost",
  },
  4029: {
    name: "TOO_MANY",
    meaning: "more frames than RATE_LIMIT",
    action: "send more slowly, and reconnect, but not at once",
  },
  4030: {
    name: "REFUSED",
    meaning: "refused, right after it was opened: Origin, Host, URL, or the site's policy",
    action: "do not reconnect; show the reason, which says what to do",
  },
  4500: {
    name: "DISCONNECTED",
    meaning: "the site has ended the connection: wsloop.api.disconnect(), manage.py wskick",
    action: "do not reconnect; tell the user",
  },
};

/** @typedef {import("./wsloop.js").AfterClose} AfterClose */

/**
 * @typedef {{name: string, meaning: string, action: string} & AfterClose} CloseCode
 * `action`: what a client should do, in the words of docs/reference/websockets.rst; the rest is what this client does.
 */

/**
 * The close codes that wsloop sends, as in docs/reference/websockets.rst (a test compares the two), and 1008, which a
 * proxy or an application may send.
 *
 * @type {Record<number, CloseCode>}
 */
export const CLOSE_CODES = Object.fromEntries(
  Object.entries(TEXTS).map(([code, texts]) => [code, { ...texts, ...afterClose(Number(code)) }]),
);

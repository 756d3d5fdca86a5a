/**
 * Explains close codes, and the statuses with which the server refuses a handshake. The codes that wsloop sends are in
 * close-codes.js of wsloop; the others come from RFC 6455, section 7.4, and from the registry that it established.
 */

import { CLOSE_CODES } from "../../wsloop/close-codes.js";

/** @typedef {{meaning: string, action: string}} Explanation */

/** @type {Record<number, Explanation>} further codes that proxies, consumers and browsers may report */
export const OTHER_CODES = {
  1001: {
    meaning: "one side goes away: the user leaves the page, or a server stops",
    action: "reconnect after a random pause",
  },
  1003: { meaning: "a kind of message that the other side does not accept", action: "fix the client" },
  1004: { meaning: "reserved; nobody may send it", action: "find out which side did" },
  1005: { meaning: "the close frame had no code", action: "nothing" },
  1006: {
    meaning: "no close frame: the server refused the handshake, or the connection was cut",
    action: "reconnect after a random pause that grows with each failure",
  },
  1010: {
    meaning: "the server did not negotiate an extension that the client needs",
    action: "fix the client, or the server",
  },
  1014: { meaning: "a gateway got no valid answer from the server behind it", action: "reconnect later" },
  1015: { meaning: "the TLS handshake failed", action: "check the certificate" },
};

/** @param {number} code @returns {Explanation} */
export function explain(code) {
  return CLOSE_CODES[code] ?? OTHER_CODES[code] ?? unlisted(code);
}

/** @param {number} code @returns {Explanation} */
function unlisted(code) {
  if (code >= 4000 && code <= 4999) {
    return {
      meaning: "private: defined by this site's consumer for its clients",
      action: "see the code of the consumer",
    };
  }
  if (code >= 3000 && code <= 3999) {
    return { meaning: "defined by a library or framework, registered with IANA", action: "see its documentation" };
  }
  return { meaning: "not assigned", action: "find out which side sent it" };
}

/**
 * Returns why a script cannot send a close code and reason; null if it can.
 *
 * @param {string} code as typed; empty: none
 * @param {string} reason
 * @returns {string | null}
 */
export function problemOfClose(code, reason) {
  const number = Number(code);
  if (code && !(/^\d+$/.test(code) && (number === 1000 || (number >= 3000 && number <= 4999)))) {
    return "A script may close with 1000, or with 3000 to 4999.";
  }
  if (reason && !code) return "A reason needs a code.";
  const bytes = new TextEncoder().encode(reason).length;
  return bytes > 123 ? `The reason has ${bytes} bytes; a close frame takes up to 123.` : null;
}

/** HTTP statuses with which the server refuses a handshake, and the reasons; the likely ones first. */
export const REFUSALS = [
  ["403", "the policy does not allow it for this user, a token is not valid, or a consumer rejected the socket"],
  ["429", "this user or address has too many sockets"],
  ["503", "Redis is down, or the worker is full"],
  ["400", "the facility has a colon, there are too many parameters, or the Host is not allowed"],
  ["414, 431", "the path, or the query, is too long"],
  ["500", "the site's own code failed"],
];

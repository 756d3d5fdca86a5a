/**
 * Explains close codes, and the statuses with which the server refuses a handshake. The codes that wsloop sends are in
 * wsloop.js; the others are those of RFC 6455, section 7.4, and of the registry that it founded.
 */

import { CLOSE_CODES } from "../../wsloop/wsloop.js";

/** @typedef {{meaning: string, action: string}} Explanation */

/** @type {Record<number, Explanation>} further codes that proxies, consumers and browsers may report */
export const OTHER_CODES = {
  1001: {
    meaning: "one side goes away: the page is left, or a server stops",
    action: "connect again, after a random pause",
  },
  1003: { meaning: "a kind of message that the other side does not take", action: "mend the client" },
  1004: { meaning: "reserved; nobody may send it", action: "find out who did" },
  1005: { meaning: "the close frame had no code", action: "nothing" },
  1006: {
    meaning: "no close frame: the handshake was refused, or the line was cut",
    action: "connect again, after a random pause that grows with each failure",
  },
  1010: { meaning: "the client misses an extension that it needs", action: "mend the client, or the server" },
  1014: { meaning: "a gateway got no valid answer from the server behind it", action: "connect again later" },
  1015: { meaning: "the TLS handshake failed", action: "look at the certificate" },
};

/** @param {number} code @returns {Explanation} */
export function explain(code) {
  return CLOSE_CODES[code] ?? OTHER_CODES[code] ?? unlisted(code);
}

/** @param {number} code @returns {Explanation} */
function unlisted(code) {
  if (code >= 4000 && code <= 4999) {
    return {
      meaning: "private: an agreement between this site's consumer and its clients",
      action: "ask who wrote the consumer",
    };
  }
  if (code >= 3000 && code <= 3999) {
    return { meaning: "of a library or framework, registered with IANA", action: "ask its documentation" };
  }
  return { meaning: "not assigned", action: "find out who sent it" };
}

/**
 * Returns what is wrong with a close code and reason that a script wants to send; null: nothing.
 *
 * @param {string} code as it was typed; empty: none
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

/** HTTP statuses with which the server refuses a handshake, and why: the likely ones first. */
export const REFUSALS = [
  ["403", "the policy does not allow it to this user, a token is not valid, or a consumer rejected it"],
  ["429", "too many sockets of this user or address"],
  ["503", "Redis is down, or the worker is full"],
  ["400", "the facility has a colon, there are too many parameters, or the Host is not allowed"],
  ["414, 431", "the path, or the query, is too long"],
  ["500", "the site's own code failed"],
];

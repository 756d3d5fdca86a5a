/**
 * What close codes mean and what a client does about them. Those that wsloop sends are worded as in
 * docs/reference/websockets.rst, and a test compares the two; the others are those of RFC 6455, section 7.4, and of the
 * registry that it founded.
 */

/** @typedef {{meaning: string, action: string}} Explanation */

/** @type {Record<number, Explanation>} the codes of wsloop, as its reference has them */
export const WSLOOP_CODES = {
  1000: { meaning: "the client's own, sent back; or the consumer has done its work", action: "nothing" },
  1002: { meaning: "the client broke the protocol", action: "mend the client" },
  1007: { meaning: "text that is not UTF-8, or no JSON where a consumer expects it", action: "mend the client" },
  1009: { meaning: "message over MAX_MESSAGE_SIZE", action: "send smaller ones" },
  1011: { meaning: "the server's or the site's code failed", action: "connect again later" },
  1012: {
    meaning: "the worker restarts",
    action: "connect again, after a random pause. Workers that stop close their sockets over some seconds",
  },
  1013: {
    meaning: "Redis cannot be read, in the middle of a long recovery",
    action: "connect again, after a random pause, with resume",
  },
  4001: {
    meaning: "signed out: logout, another password, user not active or deleted; session or token expired",
    action: "do not come back; show that the user is signed out. With a token: get a new one first",
  },
  4003: {
    meaning: "the user's rights or groups have changed",
    action: "connect again, after a random pause: channels are decided anew",
  },
  4008: {
    meaning: "too slow: more than MAX_QUEUED_BYTES waited, or no answer to a ping in PING_TIMEOUT",
    action: "connect again, after a random pause, with resume. Without history what waited is lost",
  },
  4029: {
    meaning: "more frames, or bytes, than RATE_LIMIT",
    action: "send more slowly, and connect again, but not at once",
  },
};

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
  1008: { meaning: "not allowed, by a proxy or the application", action: "do not come back" },
  1010: { meaning: "the client misses an extension that it needs", action: "mend the client, or the server" },
  1014: { meaning: "a gateway got no valid answer from the server behind it", action: "connect again later" },
  1015: { meaning: "the TLS handshake failed", action: "look at the certificate" },
};

/** @param {number} code @returns {Explanation} */
export function explain(code) {
  return WSLOOP_CODES[code] ?? OTHER_CODES[code] ?? unlisted(code);
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
 * Says what is wrong with a close code and reason that a script wants to send; null: nothing.
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

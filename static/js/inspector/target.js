/**
 * The target of a connection: converts path, parameters and subprotocols to and from the URL of a WebSocket and the
 * address of the page. The user may share that address, so it contains no tokens.
 */

const SECRET_PARAMETERS = ["token", "resume"];
const SECRET_PROTOCOL = /^wsloop\.token\./i;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/; // RFC 9110, 5.6.2: the characters in the name of a subprotocol

/**
 * @typedef {object} Target
 * @property {string} path below WSLOOP["URL"], decoded
 * @property {string[]} parameters the parameters without a value that the page knows, in its order
 * @property {string} more further parameters, as in a URL
 * @property {string[]} protocols
 */

/**
 * @param {Target} target
 * @param {string} root WSLOOP["URL"]
 * @param {string} base URL of the page
 * @returns {string}
 */
export function socketUrl({ path, parameters, more }, root, base) {
  const url = new URL(root + path.split("/").map(encodeURIComponent).join("/"), base);
  url.protocol = url.protocol.replace("http", "ws");
  const query = [
    ...parameters,
    more
      .trim()
      .replace(/^[?&]+/, "")
      .replaceAll("#", "%23"),
  ]
    .filter(Boolean)
    .join("&");
  return url.href + (query && `?${query}`);
}

/** @param {Target} target @returns {{field: "path" | "protocols", text: string} | null} the first problem */
export function problemOf({ path, protocols }) {
  if (!path) return { field: "path", text: "Choose a path, or type one." };
  if (path.split("/").some((part) => part === "." || part === "..")) {
    return { field: "path", text: "A path must not have parts “.” and “..”: browsers remove them." };
  }
  const wrong = protocols.find((name) => !TOKEN.test(name));
  if (wrong) return { field: "protocols", text: `“${wrong}” cannot be the name of a subprotocol.` };
  const lower = protocols.map((name) => name.toLowerCase());
  const twice = protocols.find((name, index) => lower.indexOf(name.toLowerCase()) !== index);
  return twice ? { field: "protocols", text: `“${twice}” is listed twice.` } : null;
}

/** @param {string} text names, separated by commas or spaces @returns {string[]} */
export function protocolNames(text) {
  return text.split(/[\s,]+/).filter(Boolean);
}

/**
 * Reads a URL, or a path with a query, that was pasted as the path.
 *
 * @param {string} text
 * @param {string} root
 * @param {string} base
 * @param {string[]} known parameters that the page knows
 * @returns {{path: string, parameters: string[], more: string} | {problem: string} | null} null: it is a plain path
 */
export function parsePasted(text, root, base, known) {
  const whole = /^(wss?|https?):\/\//i.test(text);
  if (!whole && !text.includes("?") && !text.startsWith(root)) return null;
  let url;
  try {
    url = new URL(whole || text.startsWith(root) ? text : root + text, base);
  } catch {
    return { problem: "This is not a valid URL." };
  }
  if (url.host !== new URL(base).host)
    return { problem: `You can only open sockets of this site, not of ${url.host}.` };
  if (!url.pathname.startsWith(root)) return { problem: `Sockets of this site begin with ${root}.` };
  const parts = url.search.slice(1).split("&").filter(Boolean);
  const isKnown = (/** @type {string} */ part) => known.includes(part.replace(/=$/, ""));
  return {
    path: decode(url.pathname.slice(root.length)),
    parameters: known.filter((name) => parts.some((part) => part.replace(/=$/, "") === name)),
    more: parts.filter((part) => !isKnown(part)).join("&"),
  };
}

/** @param {Target} target @returns {string} the query of the page's address */
export function toQuery({ path, parameters, more, protocols }) {
  const open = more
    .split("&")
    .filter(
      (part) => part && !SECRET_PARAMETERS.includes(decode(part.split("=")[0]).trim().toLowerCase().replace(/^\?/, "")),
    )
    .join("&");
  const names = protocols.filter((name) => !SECRET_PROTOCOL.test(name));
  return [
    `path=${encodeURIComponent(path).replaceAll("%2F", "/")}`,
    ...parameters,
    ...(names.length ? [`protocol=${names.map(encodeURIComponent).join(",")}`] : []),
    ...(open ? [`more=${encodeURIComponent(open)}`] : []),
  ].join("&");
}

/**
 * @param {string} query of the page's address
 * @param {string[]} known parameters that the page knows
 * @returns {Target | null} null: the query has no path
 */
export function fromQuery(query, known) {
  const given = new URLSearchParams(query);
  const path = given.get("path");
  if (path === null) return null;
  return {
    path,
    parameters: known.filter((name) => given.has(name)),
    more: given.get("more") ?? "",
    protocols: protocolNames(given.get("protocol") ?? ""),
  };
}

/** @param {string} text @returns {string} */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

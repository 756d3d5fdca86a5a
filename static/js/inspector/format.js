/** Formats what the log shows: sizes, times, JSON and bytes. The functions do not touch the page. */

const UNITS = ["KiB", "MiB", "GiB"];

/** @param {number} bytes @returns {string} such as `512 B`, `64 KiB` and `1.5 MiB` */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} ${UNITS[unit]}`;
}

/** @param {number} count @param {string} one @param {string} [many] @returns {string} such as `1 message` */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** @param {Date} date @returns {string} such as `09:05:01.042` */
export function clock(date) {
  const [hours, minutes, seconds] = [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits);
  return `${hours}:${minutes}:${seconds}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** @param {number} milliseconds @returns {string} such as `4.2 s`, `3:07` and `1:02:03` */
export function duration(milliseconds) {
  if (milliseconds < 60_000) return `${(Math.floor(milliseconds / 100) / 10).toFixed(1)} s`;
  const all = Math.floor(milliseconds / 1000);
  const [hours, minutes, seconds] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  return hours ? `${hours}:${twoDigits(minutes)}:${twoDigits(seconds)}` : `${minutes}:${twoDigits(seconds)}`;
}

/** @param {number} milliseconds @returns {string} such as `0.42 ms`, `3.1 ms` and `120 ms` */
export function roundTrip(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 1 ? 2 : milliseconds < 100 ? 1 : 0)} ms`;
}

/**
 * Formats JSON over several lines. Only objects and arrays: a number or a word is readable as it is, and a number
 * beyond the precision of a script would change.
 *
 * @param {string} text
 * @returns {string | null} null: it is not JSON, or neither object nor array
 */
export function prettyJson(text) {
  return parseStructure(text) ? layOut(text) : null;
}

/**
 * Describes a message in a few words.
 *
 * @param {string} text
 * @returns {{kind: "text" | "json", title: string}} the title is that of frames of `wsloop.v1` and of many
 *     consumers; empty for other messages
 */
export function describe(text) {
  const content = parseStructure(text);
  const words = [content?.type, content?.audience].filter((word) => typeof word === "string" && word.length < 40);
  return { kind: content ? "json" : "text", title: words.join(", ") };
}

/** @param {string} text @returns {Record<string, unknown> | null} null: it is not JSON, or neither object nor array */
function parseStructure(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {string} text valid JSON @returns {string} the same tokens, with line breaks between them */
function layOut(text) {
  const parts = [];
  let indent = 0;
  const newLine = () => `\n${"  ".repeat(indent)}`;
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  for (const [index, token] of tokens.entries()) {
    if (token === "{" || token === "[") {
      indent += 1;
      parts.push(token, isEnd(tokens[index + 1]) ? "" : newLine());
    } else if (isEnd(token)) {
      indent -= 1;
      const empty = index > 0 && (tokens[index - 1] === "{" || tokens[index - 1] === "[");
      parts.push(empty ? "" : newLine(), token);
    } else if (token === ",") {
      parts.push(token, newLine());
    } else {
      parts.push(token === ":" ? ": " : token);
    }
  }
  return parts.join("");
}

/** @param {string | undefined} token @returns {boolean} */
function isEnd(token) {
  return token === "}" || token === "]";
}

/**
 * @param {Uint8Array} bytes
 * @param {number} perRow bytes in a row
 * @returns {string} rows of offset, hexadecimal digits and ASCII characters
 */
export function hexDump(bytes, perRow = 16) {
  const rows = [];
  for (let offset = 0; offset < bytes.length; offset += perRow) {
    const row = [...bytes.subarray(offset, offset + perRow)];
    const digits = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    rows.push(`${offset.toString(16).padStart(6, "0")}  ${digits.padEnd(perRow * 3 - 1)}  ${letters}`);
  }
  return rows.join("\n");
}

/** @param {string} text @returns {number} its length in bytes of UTF-8, as it is sent */
export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

/** @param {number} number @returns {string} */
function twoDigits(number) {
  return String(number).padStart(2, "0");
}

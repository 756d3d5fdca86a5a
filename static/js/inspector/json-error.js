/**
 * Finds the position of an error in JSON. `JSON.parse` decides whether there is one. Browsers report the position in
 * different ways, and Chromium does not report it for short texts.
 */

/** @typedef {{line: number, column: number, index: number, problem: string}} JsonError */

/** @param {string} text @returns {JsonError | null} null: it is JSON */
export function jsonError(text) {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    const { index, problem } = firstFault(text) ?? { index: 0, problem: String(/** @type {Error} */ (error).message) };
    const before = text.slice(0, index).split("\n");
    return { line: before.length, column: before[before.length - 1].length + 1, index, problem };
  }
}

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|(?:true|false|null)(?!\w)/y;
// eslint-disable-next-line no-control-regex -- JSON forbids control characters in a text
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*/y;

/**
 * Scans the text without recursion, so that any depth is possible.
 *
 * @param {string} text
 * @returns {{index: number, problem: string} | null}
 */
function firstFault(text) {
  let index = 0;
  /** @type {string[]} the brackets that close the open ones */
  const open = [];
  /** @type {"value" | "first value" | "name" | "first name" | "colon" | "next" } */
  let expected = "value";

  /** @param {RegExp} pattern @returns {string} the match; empty if the pattern does not match here */
  const read = (pattern) => {
    pattern.lastIndex = index;
    const found = pattern.exec(text)?.[0] ?? "";
    index += found.length;
    return found;
  };
  /** @param {string} wanted */
  const fault = (wanted) => {
    const point = text.codePointAt(index);
    return {
      index,
      problem: point === undefined ? `it ends where ${wanted} should be` : `${wanted} expected, not ${name(point)}`,
    };
  };
  /** @returns {{index: number, problem: string} | null} */
  const readString = () => {
    if (!read(STRING)) return null;
    if (text[index] === '"') {
      index += 1;
      return null;
    }
    if (index >= text.length) return { index, problem: "a text has no closing quotation mark" };
    if (text[index] === "\\") return { index, problem: "JSON does not have this escape" };
    return { index, problem: "a line break or control character in a text must be escaped" };
  };

  for (;;) {
    read(SPACE);
    const character = text[index];
    const last = open[open.length - 1];
    if (expected === "next") {
      if (!last) return index < text.length ? fault("the end") : null;
      if (character === last) {
        open.pop();
        index += 1;
      } else if (character === ",") {
        index += 1;
        expected = last === "}" ? "name" : "value";
      } else return fault(`a comma or ${last}`);
    } else if (expected === "colon") {
      if (character !== ":") return fault("a colon");
      index += 1;
      expected = "value";
    } else if ((expected === "first value" || expected === "first name") && character === last) {
      open.pop();
      index += 1;
      expected = "next";
    } else if (expected === "name" || expected === "first name") {
      if (character !== '"') return fault("a name in quotation marks");
      const wrong = readString();
      if (wrong) return wrong;
      expected = "colon";
    } else if (character === "{" || character === "[") {
      open.push(character === "{" ? "}" : "]");
      index += 1;
      expected = character === "{" ? "first name" : "first value";
    } else if (character === '"') {
      const wrong = readString();
      if (wrong) return wrong;
      expected = "next";
    } else if (read(SCALAR)) expected = "next";
    else return fault("a value");
  }
}

/** @param {number} point @returns {string} */
function name(point) {
  return point === 10 || point === 13 ? "a line break" : `“${String.fromCodePoint(point)}”`;
}

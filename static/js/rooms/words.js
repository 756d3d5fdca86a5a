/** The texts of the page of a room. */

/** @param {string[]} names of the users who are typing */
export function typingText(names) {
  if (names.length === 0) return "";
  if (names.length > 3) return "Several people are typing …";
  const last = names[names.length - 1];
  return names.length === 1 ? `${last} is typing …` : `${names.slice(0, -1).join(", ")} and ${last} are typing …`;
}

/** @param {number} count */
export function newText(count) {
  return `${count} new message${count === 1 ? "" : "s"}`;
}

/** @param {number} count */
export function guestsText(count) {
  return count > 0 ? `${count} guest${count === 1 ? "" : "s"}` : "";
}

/** The counter appears when this many characters or fewer are left. */
const NEAR = 200;

/** @param {number} length @param {number} most */
export function counterText(length, most) {
  const left = most - length;
  if (left > NEAR) return "";
  return left < 0 ? `${-left} too many` : `${left} left`;
}

/** Counts characters as the server does: an emoji outside of the basic plane is one. @param {string} text */
export function lengthOf(text) {
  let length = 0;
  for (const _ of text.trim()) length += 1;
  return length;
}

/**
 * Returns the replacement for a picture of the user: a letter, and one of four colours. As in chat/rooms/views.py.
 *
 * @param {string} name
 */
export function face(name) {
  let sum = 0;
  for (const character of name) sum += Number(character.codePointAt(0));
  const first = name.codePointAt(0);
  return { initial: first === undefined ? "" : String.fromCodePoint(first).toUpperCase(), tone: sum % 4 };
}

/** Returns a UUID. Not `crypto.randomUUID`, which pages without HTTPS do not have. @returns {string} */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * Keeps an unfinished message in the tab until it is sent: the user may leave the page to sign in again, by mistake, or
 * for another room.
 */

/** @typedef {{get: () => string, put: (text: string) => void}} Kept */

/**
 * @param {string} whose names the user and the room: another user of the same tab must not see the text
 * @param {() => Storage} [storage] throws if the user forbids it
 * @returns {Kept}
 */
export function draftOf(whose, storage = () => sessionStorage) {
  const key = `draft of ${whose}`;
  return {
    get() {
      try {
        return storage().getItem(key) ?? "";
      } catch {
        return "";
      }
    },
    put(text) {
      try {
        if (text) storage().setItem(key, text);
        else storage().removeItem(key);
      } catch {
        // Forbidden, or full: the text is still in its field.
      }
    },
  };
}

/**
 * What somebody has begun to write, kept in the tab until it is sent: a page is left to sign in again, by mistake, or
 * for another room.
 */

/** @typedef {{get: () => string, put: (text: string) => void}} Kept */

/**
 * @param {string} whose and where: others who sign in in the same tab must not find it
 * @param {() => Storage} [storage] throws where the user forbids it
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
        // Forbidden, or full: the text is in its field all the same.
      }
    },
  };
}

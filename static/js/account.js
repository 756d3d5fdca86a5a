/**
 * Shows that the user is signed out, when a socket has told so: elements with `data-signed-in` go, those with
 * `data-signed-out` come, and forms can no longer be sent. What was written in them can still be read and copied.
 */

import { disable } from "./forms.js";

export function signedOut() {
  for (const element of elements("[data-signed-in]")) element.hidden = true;
  for (const element of elements("[data-signed-out]")) element.hidden = false;
  for (const form of elements("form[data-fetch]")) disable(/** @type {HTMLFormElement} */ (form));
}

/** @param {string} selector @returns {NodeListOf<HTMLElement>} */
function elements(selector) {
  return document.querySelectorAll(selector);
}

/**
 * Shows that the user is signed out: hides elements with `data-signed-in`, shows those with `data-signed-out`, and
 * disables the forms. The user can still read and copy their content.
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

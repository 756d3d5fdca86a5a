/** Every page loads this module. It starts the parts that the page contains. */

import * as account from "./account.js";
import * as forms from "./forms.js";
import * as live from "./live.js";
import * as navigation from "./navigation.js";

for (const form of document.querySelectorAll("form[data-fetch]")) forms.start(/** @type {HTMLFormElement} */ (form));
for (const element of document.querySelectorAll("[data-live]")) {
  live.start(/** @type {HTMLElement} */ (element), account.signedOut);
}
navigation.start(/** @type {HTMLElement} */ (document.querySelector("nav.pages")));

/** Helpers for the elements of the page. Texts are set as text, never as HTML. */

/**
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {any} the element, which must be there
 */
export function find(parent, selector) {
  const element = parent.querySelector(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(string | Node)} content
 * @returns {HTMLElement}
 */
export function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** @param {Element} element @param {string} text set only if it differs, so that screen readers announce it once */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Shows or removes the error of a field.
 *
 * @param {HTMLInputElement | HTMLTextAreaElement} field
 * @param {HTMLElement} list the list of errors
 * @param {string | null} problem
 */
export function showProblem(field, list, problem) {
  list.hidden = problem === null;
  find(list, "li").textContent = problem ?? "";
  if (problem === null) field.removeAttribute("aria-invalid");
  else field.setAttribute("aria-invalid", "true");
}

/**
 * Enables or disables a button. Not with `disabled`: the button would lose the focus, and a keyboard user could not
 * read the reason.
 *
 * @param {HTMLElement} button
 * @param {boolean} on
 */
export function enable(button, on) {
  if (on) button.removeAttribute("aria-disabled");
  else button.setAttribute("aria-disabled", "true");
}

/** @param {HTMLElement} button @returns {boolean} */
export function isEnabled(button) {
  return !button.hasAttribute("aria-disabled");
}

/** @param {Uint8Array<ArrayBuffer>} data @param {string} name of the file that the browser saves */
export function save(data, name) {
  const url = URL.createObjectURL(new Blob([data]));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

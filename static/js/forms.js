/**
 * Posts a form with `data-fetch` without leaving the page. The view replies with JSON: `{"ok": true}`, or the errors of
 * each field as lists of sentences. After any error the text stays in its field. `data-done` is what the form says when
 * all is well.
 */

/** @typedef {{ok: boolean, errors?: Record<string, string[]>}} Reply */

const GENERAL = "__all__"; // Django's name for errors that belong to no single field

/** @param {HTMLFormElement} form */
export function start(form) {
  const status = /** @type {HTMLElement} */ (form.querySelector("[data-status]"));
  const message = field(form, "message"); // a form that only has buttons has none
  const done = form.dataset.done ?? "Sent.";
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // Not `disabled`: a keyboard user would lose the focus.
    if (busy || form.dataset.disabled !== undefined) return;
    const button = event.submitter;
    busy = true;
    button?.setAttribute("aria-disabled", "true");
    const { ok, errors = {} } = await post(form, button);
    busy = false;
    if (form.dataset.disabled === undefined) button?.removeAttribute("aria-disabled");
    const others = showErrors(form, errors);
    status.textContent = ok ? done : others.join(" ") || "Please correct the marked fields.";
    status.dataset.kind = ok ? "success" : "error";
    if (ok && message) message.value = "";
    if (ok || errors[GENERAL]) message?.focus();
  });
}

/**
 * Disables a form. The user can still select and copy its texts, and no control loses the focus.
 *
 * @param {HTMLFormElement} form
 */
export function disable(form) {
  form.dataset.disabled = "";
  for (const control of /** @type {Iterable<HTMLElement>} */ (form.elements)) {
    control.setAttribute("aria-disabled", "true");
    if ("readOnly" in control) control.readOnly = true;
  }
}

/** @param {HTMLFormElement} form @param {HTMLElement | null} button that was pressed @returns {Promise<Reply>} */
async function post(form, button) {
  /** @param {string} sentence @returns {Reply} */
  const failed = (sentence) => ({ ok: false, errors: { [GENERAL]: [sentence] } });
  let response;
  try {
    response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(/** @type {any} */ (new FormData(form, button))),
    });
  } catch {
    return failed("The server cannot be reached. Your message is still here; try again.");
  }
  try {
    return await response.json();
  } catch {
    // Not the view's reply: Django's page about an expired CSRF token, or the server's error page.
    return failed(
      response.status === 403
        ? "This page is out of date. Copy your message, reload the page and send it again."
        : `The server did not accept the message (error ${response.status}). It is still here; try again.`,
    );
  }
}

/** @param {HTMLFormElement} form @param {string} name @returns {HTMLInputElement | HTMLTextAreaElement} */
function field(form, name) {
  return /** @type {any} */ (form.elements.namedItem(name));
}

/**
 * Shows each sentence where Django's own templates show it, and focuses the first field with an error.
 *
 * @param {HTMLFormElement} form
 * @param {Record<string, string[]>} errors
 * @returns {string[]} the sentences that belong to no single field
 */
function showErrors(form, errors) {
  for (const old of form.querySelectorAll(".errorlist")) old.remove();
  for (const marked of form.querySelectorAll("[aria-invalid]")) {
    marked.removeAttribute("aria-invalid");
    describe(marked, `${marked.id}_error`, false);
  }
  const wrong = Object.keys(errors).filter((name) => field(form, name) instanceof HTMLElement);
  for (const name of wrong) {
    const control = field(form, name);
    const list = document.createElement("ul");
    list.className = "errorlist";
    list.id = `${control.id}_error`;
    list.append(
      ...errors[name].map((sentence) => Object.assign(document.createElement("li"), { textContent: sentence })),
    );
    control.before(list);
    control.setAttribute("aria-invalid", "true");
    describe(control, list.id, true);
  }
  if (wrong.length) field(form, wrong[0]).focus();
  return Object.keys(errors).flatMap((name) => (wrong.includes(name) ? [] : errors[name]));
}

/** @param {Element} control @param {string} id @param {boolean} add false: `id` no longer describes the control */
function describe(control, id, add) {
  const others = (control.getAttribute("aria-describedby") ?? "").split(" ").filter((each) => each && each !== id);
  const ids = add ? [...others, id] : others;
  if (ids.length) control.setAttribute("aria-describedby", ids.join(" "));
  else control.removeAttribute("aria-describedby");
}

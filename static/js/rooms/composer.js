/**
 * Where a message is written. Enter sends it; it stays in its field until it is known to be stored. Each message has a key:
 * whatever became of a first attempt, the second one does not store it twice.
 */

import { disable } from "../forms.js";
import { counterText, lengthOf, newKey } from "./words.js";

/** @typedef {Record<string, string[]>} Errors lists of sentences by field */
/** @typedef {{key: string, text: string}} Draft */

const TYPING_INTERVAL = 3000; // milliseconds between two notes that somebody is typing

/**
 * @param {HTMLFormElement} form
 * @param {object} line
 * @param {(draft: Draft) => Promise<Errors | null>} line.deliver fulfilled with null when the message is stored
 * @param {() => void} line.onTyping
 */
export function composerOf(form, { deliver, onTyping }) {
  /** @param {string} selector @returns {HTMLElement} */
  const find = (selector) => /** @type {HTMLElement} */ (form.querySelector(selector));
  const field = /** @type {HTMLTextAreaElement} */ (find("[name=message]"));
  const [button, errorBox, status, counter] = ["send", "errors", "status", "counter"].map((name) => find(`[data-${name}]`));
  const most = Number(field.dataset.most);
  /** @type {Draft | null} what was tried to send last */
  let draft = null;
  let busy = false;
  let typedAt = -Infinity;

  form.noValidate = true; // or the browser would speak first, in a bubble of its own
  field.enterKeyHint = "send";
  find("[data-keys]").hidden = false;

  field.addEventListener("input", () => {
    count();
    if (field.value.trim() && performance.now() - typedAt >= TYPING_INTERVAL) {
      typedAt = performance.now();
      onTyping();
    }
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  count();

  async function submit() {
    if (busy || form.dataset.disabled !== undefined) return;
    const text = field.value.trim();
    const length = lengthOf(text);
    if (length === 0) return fail({ message: ["Write something first."] });
    if (length > most) {
      return fail({ message: [`A message may have ${most} characters; this one has ${length}.`] });
    }
    if (draft?.text !== text) draft = { key: newKey(), text };
    setBusy(true);
    const errors = await deliver(draft);
    setBusy(false);
    if (errors) return fail(errors);
    if (draft) sent(draft.key);
    field.focus();
  }

  /** @param {boolean} now */
  function setBusy(now) {
    busy = now;
    status.textContent = now ? "Sending …" : "";
    if (form.dataset.disabled !== undefined) return;
    field.readOnly = now;
    if (now) button.setAttribute("aria-disabled", "true");
    else button.removeAttribute("aria-disabled");
  }

  /** Empties the field, if the message with this key is what is in it. @param {string} key */
  function sent(key) {
    if (draft?.key !== key) return;
    if (field.value.trim() === draft.text) field.value = "";
    draft = null;
    typedAt = -Infinity;
    showErrors([]);
    count();
  }

  /** @param {Errors} errors */
  function fail(errors) {
    showErrors(Object.values(errors).flat());
    field.focus();
  }

  /** @param {string[]} sentences */
  function showErrors(sentences) {
    const items = sentences.map((sentence) => Object.assign(document.createElement("li"), { textContent: sentence }));
    const list = Object.assign(document.createElement("ul"), { className: "errorlist", id: `${field.id}_error` });
    list.append(...items);
    errorBox.replaceChildren(...(items.length ? [list] : []));
    if (items.length) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", list.id);
    } else {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  }

  function count() {
    const length = lengthOf(field.value);
    counter.textContent = counterText(length, most);
    counter.classList.toggle("over", length > most);
  }

  return {
    sent,
    disable() {
      disable(form);
    },
  };
}

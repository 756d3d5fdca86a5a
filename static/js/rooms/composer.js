/**
 * The form that sends messages. Enter sends one, and the user can write the next at once; a message that could not be
 * sent returns to the field. Each message has a key, so that a second attempt does not store it twice.
 */

import { disable } from "../forms.js";
import { counterText, lengthOf, newKey } from "./words.js";

/** @typedef {Record<string, string[]>} Errors lists of sentences by field */
/** @typedef {{key: string, text: string}} Draft */
/** @typedef {import("./draft.js").Kept} Kept */

const TYPING_INTERVAL = 3000; // milliseconds between two notices that the user is typing

/**
 * @param {HTMLFormElement} form
 * @param {object} line
 * @param {Kept} line.draft keeps the text that was not sent
 * @param {(draft: Draft) => Promise<Errors | null>} line.deliver fulfilled with null when the message is stored
 * @param {(draft: Draft) => void} line.onSend called at once, before the message is delivered
 * @param {(draft: Draft) => void} line.onFail called when the message returns to the field
 * @param {() => void} line.onTyping
 */
export function composerOf(form, { draft: kept, deliver, onSend, onFail, onTyping }) {
  /** @param {string} selector @returns {HTMLElement} */
  const find = (selector) => /** @type {HTMLElement} */ (form.querySelector(selector));
  const field = /** @type {HTMLTextAreaElement} */ (find("[name=message]"));
  const [errorBox, counter] = ["[data-errors]", "[data-counter]"].map(find);
  const most = Number(field.dataset.most);
  /** @type {Draft[]} the message that is being sent, and those that wait for it */
  const queue = [];
  /** @type {Draft | null} the message that has returned; the server may have stored it */
  let failed = null;
  let typedAt = -Infinity;

  form.noValidate = true; // the browser would show errors in a bubble of its own
  field.enterKeyHint = "send";
  find("[data-keys]").hidden = false;

  field.addEventListener("input", () => {
    count();
    kept.put(field.value);
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
  if (!field.value) field.value = kept.get();
  count();

  function submit() {
    if (form.dataset.disabled !== undefined) return;
    const text = field.value.trim();
    const length = lengthOf(text);
    field.focus();
    if (length === 0) return showErrors(["Write something first."]);
    if (length > most) return showErrors([`A message may have ${most} characters; this one has ${length}.`]);
    const draft = failed?.text === text ? failed : { key: newKey(), text };
    put("");
    showErrors([]);
    onSend(draft);
    queue.push(draft);
    if (queue.length === 1) drain();
  }

  /** Sends one message after the other, so that the server stores them in their order. */
  async function drain() {
    while (queue.length > 0) {
      const errors = await deliver(queue[0]);
      if (errors) giveBack(queue.splice(0), errors);
      else queue.shift();
    }
  }

  /** @param {Draft[]} drafts the first could not be sent; the others waited for it @param {Errors} errors */
  function giveBack(drafts, errors) {
    for (const draft of drafts) onFail(draft);
    failed = drafts[0];
    put([...drafts.map(({ text }) => text), field.value].filter(Boolean).join("\n"));
    showErrors(Object.values(errors).flat());
  }

  /** Called when the server has stored the message with this key after all. @param {string} key */
  function stored(key) {
    if (failed?.key !== key) return;
    const text = field.value.trim();
    if (text === failed.text || text.startsWith(`${failed.text}\n`)) {
      put(text.slice(failed.text.length).trimStart());
      showErrors([]);
    }
    failed = null;
  }

  /** @param {string} text */
  function put(text) {
    field.value = text;
    kept.put(text);
    typedAt = -Infinity;
    count();
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
    stored,
    disable() {
      disable(form);
    },
  };
}

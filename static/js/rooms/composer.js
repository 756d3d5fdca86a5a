/**
 * Where a message is written. Enter sends it, and the next one can be written at once; what could not be sent comes
 * back. Each message has a key: whatever became of a first attempt, the second one does not store it twice.
 */

import { disable } from "../forms.js";
import { counterText, lengthOf, newKey } from "./words.js";

/** @typedef {Record<string, string[]>} Errors lists of sentences by field */
/** @typedef {{key: string, text: string}} Draft */
/** @typedef {import("./draft.js").Kept} Kept */

const TYPING_INTERVAL = 3000; // milliseconds between two notes that somebody is typing

/**
 * @param {HTMLFormElement} form
 * @param {object} line
 * @param {Kept} line.draft where the text is kept that was not sent
 * @param {(draft: Draft) => Promise<Errors | null>} line.deliver fulfilled with null when the message is stored
 * @param {(draft: Draft) => void} line.onSend called at once
 * @param {(draft: Draft) => void} line.onFail called when it comes back
 * @param {() => void} line.onTyping
 */
export function composerOf(form, { draft: kept, deliver, onSend, onFail, onTyping }) {
  /** @param {string} selector @returns {HTMLElement} */
  const find = (selector) => /** @type {HTMLElement} */ (form.querySelector(selector));
  const field = /** @type {HTMLTextAreaElement} */ (find("[name=message]"));
  const [errorBox, counter] = ["[data-errors]", "[data-counter]"].map(find);
  const most = Number(field.dataset.most);
  /** @type {Draft[]} what is being sent: the first one, and those that wait for it */
  const queue = [];
  /** @type {Draft | null} what has come back, although it may have been stored */
  let failed = null;
  let typedAt = -Infinity;

  form.noValidate = true; // or the browser would speak first, in a bubble of its own
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

  /** Sends one after the other, so that they are stored in their order. */
  async function drain() {
    while (queue.length > 0) {
      const errors = await deliver(queue[0]);
      if (errors) giveBack(queue.splice(0), errors);
      else queue.shift();
    }
  }

  /** @param {Draft[]} drafts the first could not be sent, and the others had to wait for it @param {Errors} errors */
  function giveBack(drafts, errors) {
    for (const draft of drafts) onFail(draft);
    failed = drafts[0];
    put([...drafts.map(({ text }) => text), field.value].filter(Boolean).join("\n"));
    showErrors(Object.values(errors).flat());
  }

  /** The message with this key is stored after all. @param {string} key */
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

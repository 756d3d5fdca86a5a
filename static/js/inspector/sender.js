/** The form that sends a text, JSON after a check, or a file. */

import { byteLength, size } from "./format.js";
import { jsonError } from "./json-error.js";
import { enable, find, isEnabled, setText, showProblem } from "./page.js";

/** @typedef {string | Uint8Array<ArrayBuffer>} Data */

export class Sender {
  /** @type {Data | null} */
  #last = null;
  #hint = "";

  /**
   * @param {HTMLFormElement} form
   * @param {number} mostBytes MAX_MESSAGE_SIZE
   * @param {(data: Data) => void} send
   */
  constructor(form, mostBytes, send) {
    this.form = form;
    this.mostBytes = mostBytes;
    this.send = send;
    this.message = /** @type {HTMLTextAreaElement} */ (find(form, "[name=message]"));
    this.file = /** @type {HTMLInputElement} */ (find(form, "[name=file]"));
    this.button = find(form, "[data-send-button]");
    this.repeatButton = find(form, "[data-repeat]");
    this.why = find(form, "#send-why");
    this.sizeNote = find(form, "[data-size]");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#submit();
    });
    form.addEventListener("input", () => this.#changed());
    this.repeatButton.addEventListener("click", () => {
      if (this.#last !== null && isEnabled(this.repeatButton)) this.send(this.#last);
    });
    find(form, "[data-frame]").addEventListener("click", () => this.#insertFrame());
    this.#changed();
  }

  /**
   * @param {string | null} reason why the form cannot send now; null: it can
   * @param {"needs-frame" | "is-ignored" | ""} hint which hint the page shows
   */
  allow(reason, hint) {
    enable(this.button, reason === null);
    enable(this.repeatButton, reason === null && this.#last !== null);
    setText(this.why, reason ?? "");
    this.#hint = hint;
    this.#showHint();
  }

  get #kind() {
    return String(new FormData(this.form).get("kind"));
  }

  #changed() {
    const isFile = this.#kind === "file";
    find(this.form, "[data-written]").hidden = isFile;
    find(this.form, "[data-chosen]").hidden = !isFile;
    const bytes = isFile ? (this.file.files?.[0]?.size ?? 0) : byteLength(this.message.value);
    const tooBig = bytes > this.mostBytes;
    const over = `more than MAX_MESSAGE_SIZE, ${size(this.mostBytes)}: the server will close with 1009`;
    setText(this.sizeNote, tooBig ? `${size(bytes)}, ${over}` : size(bytes));
    this.sizeNote.classList.toggle("too-big", tooBig);
    this.#complain(null, null);
    this.#showHint();
  }

  #showHint() {
    // wsloop.v1 publishes bytes unchanged.
    const hint = this.#hint === "needs-frame" && this.#kind === "file" ? "" : this.#hint;
    for (const each of ["needs-frame", "is-ignored"]) find(this.form, `[data-${each}]`).hidden = each !== hint;
  }

  async #submit() {
    if (!isEnabled(this.button)) return;
    const kind = this.#kind;
    /** @type {Data} */
    let data;
    if (kind === "file") {
      const file = this.file.files?.[0];
      if (!file) {
        this.#complain(null, "Choose a file.");
        this.file.focus();
        return;
      }
      try {
        data = new Uint8Array(await file.arrayBuffer());
      } catch {
        this.#complain(null, "The file cannot be read. Choose it again.");
        return;
      }
      if (!isEnabled(this.button)) return; // the socket has closed meanwhile
    } else {
      data = this.message.value;
      const error = kind === "json" ? jsonError(data) : null;
      if (error) {
        this.#complain(`Invalid JSON: line ${error.line}, column ${error.column}: ${error.problem}.`, null);
        this.message.focus();
        this.message.setSelectionRange(error.index, error.index + 1);
        return;
      }
    }
    this.#complain(null, null);
    this.#last = data;
    enable(this.repeatButton, true);
    this.send(data);
  }

  /** @param {string | null} ofMessage @param {string | null} ofFile */
  #complain(ofMessage, ofFile) {
    showProblem(this.message, find(this.form, "#message-error"), ofMessage);
    showProblem(this.file, find(this.form, "#file-error"), ofFile);
  }

  /** Puts the text into a frame of wsloop.v1, as its data. */
  #insertFrame() {
    find(this.form, "[name=kind][value=json]").checked = true;
    const written = this.message.value;
    if (!/^\s*\{\s*"type"/.test(written))
      this.message.value = JSON.stringify({ type: "publish", data: written, id: 1 });
    this.#changed();
    this.message.focus();
  }
}

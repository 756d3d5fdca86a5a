/**
 * Keeps the parts of a page up to date that the template tag `live` has rendered: `<wsloop-live>` with `data-url`, the
 * URL of its socket, and `data-token`, where that starts. HTML that arrives is swapped into the page by the ids of its
 * outermost elements (docs/how-to/htmx.rst). When messages were lost for good, the page is fetched again, and the part
 * brought up to date from it.
 *
 * An element is changed only where it differs, so that the focus, the scroll position and what somebody is typing stay.
 */

import { connect } from "./wsloop.js";

const SPREAD = 5000; // milliseconds within which pages that have lost messages at the same moment load themselves again
const LONGEST_PAUSE = 30_000; // milliseconds between two attempts to load
const LOAD_TIMEOUT = 30_000; // milliseconds
const OOB = ["hx-swap-oob", "data-hx-swap-oob"];

class LiveElement extends HTMLElement {
  /** @type {import("./wsloop.js").Subscription | undefined} */
  #line;
  /** @type {string[]} the HTML that has arrived since the page was requested again */
  #arrived = [];
  #loads = 0; // begun so far: a later one replaces an earlier one

  connectedCallback() {
    const { url, token } = this.dataset;
    if (!url) return; // nothing is published to this visitor
    if (document.getElementById(this.id) !== this) {
      console.error(`wsloop: two elements have the id ${this.id}; give one of them another: {% live … id="…" %}`);
    }
    this.#line = connect(url, {
      token,
      onMessage: ({ data }) => {
        if (typeof data !== "string") return;
        if (this.hasAttribute("data-stale")) this.#arrived.push(data);
        swap(data);
      },
      onState: (state) => {
        this.dataset.state = state.name;
        // Without recovery nobody knows what was published before: since the page was rendered, or in an interruption.
        if (state.name === "connected" && state.recovered === null) this.#load(0);
      },
      // On an open connection all pages lose the same messages at once; others come back one by one.
      onLost: ({ audience }) => this.#load(audience === undefined ? 0 : Math.random() * SPREAD),
    });
  }

  disconnectedCallback() {
    if (!this.#line) return;
    this.dataset.token = this.#line.token; // the element may only be on its way to another place
    this.#line.close();
    this.#loads += 1;
  }

  /** @param {number} pause milliseconds until the first attempt */
  async #load(pause) {
    const load = (this.#loads += 1);
    this.dataset.stale = "";
    for (let failures = 0; ; failures += 1) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (load !== this.#loads) return;
      this.#arrived = [];
      try {
        const page = await fetchPage();
        if (load !== this.#loads) return;
        const fresh = page.getElementById(this.id);
        if (!fresh) {
          console.warn(`wsloop: ${location.pathname} has no ${this.id} any more; the page needs to be reloaded.`);
          return;
        }
        keepingFocus(() => morphChildren(this, fresh));
        delete this.dataset.stale;
        this.#arrived.forEach(swap); // it may be newer than the page, and what is in the page already changes nothing
        return;
      } catch (error) {
        console.warn(`wsloop: ${location.pathname} could not be loaded again:`, error);
        pause = Math.random() * Math.min(LONGEST_PAUSE, 2000 * 2 ** failures);
      }
    }
  }
}

/** @returns {Promise<Document>} this page, as it is now */
async function fetchPage() {
  const options = { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(LOAD_TIMEOUT) };
  const response = await fetch(location.href, { ...options, cache: "no-store" });
  if (response.status >= 500 || response.status === 429) throw new Error(`status ${response.status}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/**
 * Swaps HTML into the page. Each outermost element replaces the one with its id; its attribute `hx-swap-oob` may say
 * something else, in htmx's words: "afterbegin", "delete", "beforeend:#orders" … Scripts in it do not run. An element
 * that is to be inserted, and is there already, is brought up to date instead: the same HTML may come again.
 *
 * @param {string} html
 */
export function swap(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  keepingFocus(() => {
    for (const element of [...template.content.children]) {
      try {
        swapElement(/** @type {HTMLElement} */ (element));
      } catch (error) {
        reportError(error); // the other elements are none the worse for it
      }
    }
  });
}

/** @param {HTMLElement} element */
function swapElement(element) {
  const words = OOB.map((name) => element.getAttribute(name)).find((value) => value) ?? "true";
  for (const name of OOB) element.removeAttribute(name);
  const [, style, selector] = words.match(/^([^:]*)(?::(.*))?$/s) ?? [];
  if (!selector && !element.id) return;
  for (const target of document.querySelectorAll(selector || `#${CSS.escape(element.id)}`)) {
    const fresh = /** @type {HTMLElement} */ (element.cloneNode(true)); // there may be several targets
    switch (style) {
      case "true":
      case "outerHTML":
        activate(morph(target, fresh));
        break;
      case "innerHTML":
        morphChildren(target, fresh);
        activate(target);
        break;
      case "delete":
        target.remove();
        break;
      case "beforebegin":
        insert(/** @type {Element} */ (target.parentNode), target, fresh);
        break;
      case "afterbegin":
        insert(target, target.firstChild, fresh);
        break;
      case "beforeend":
        insert(target, null, fresh);
        break;
      case "afterend":
        insert(/** @type {Element} */ (target.parentNode), target.nextSibling, fresh);
        break;
      case "none":
        break;
      default:
        throw new Error(`hx-swap-oob: there is no ${words}`);
    }
  }
}

/** @param {Element} parent @param {Node | null} before @param {Element} wrapper of the nodes to insert */
function insert(parent, before, wrapper) {
  for (const node of [...wrapper.childNodes]) {
    const id = node instanceof Element ? node.id : "";
    const there = id && document.getElementById(id);
    if (there && there.parentNode === parent) {
      activate(morph(there, /** @type {Element} */ (node)));
    } else {
      if (there) there.remove();
      parent.insertBefore(node, before);
      activate(node);
    }
  }
}

/**
 * Makes an element equal to another one, with as few changes as possible.
 *
 * @template {ChildNode} T
 * @param {T} old in the page
 * @param {T} fresh
 * @returns {T} what is in the page now
 */
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return old;
  if (!(old instanceof Element && fresh instanceof Element)) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (!(old instanceof LiveElement)) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }
  morphChildren(old, fresh);
  takeValue(/** @type {any} */ (old), /** @type {any} */ (fresh));
  return old;
}

/**
 * What somebody has entered hides the attributes of a field: the server's value counts, but where it is being written.
 *
 * @param {HTMLInputElement} old @param {HTMLInputElement} fresh
 */
function takeValue(old, fresh) {
  if (old.matches("[type=checkbox], [type=radio]")) old.checked = fresh.checked;
  else if (old.matches("input, textarea, select") && old !== document.activeElement) old.value = fresh.value;
}

/** @param {Element} old @param {Element} fresh whose children are taken */
function morphChildren(old, fresh) {
  const byId = new Map([...old.children].filter(({ id }) => id).map((child) => [child.id, child]));
  const coming = new Set([...fresh.children].map(({ id }) => id).filter((id) => id));
  const idOf = (/** @type {Node | null} */ node) => (node instanceof Element ? node.id : "");
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const id = idOf(child);
    // What does not come again is removed, and so is what has no id: nothing that stays has to move for it.
    while (next && !coming.has(idOf(next)) && (id ? next !== byId.get(id) : idOf(next))) next = removed(next);
    const match = id ? byId.get(id) : next && !idOf(next) ? next : null;
    if (match?.nodeName !== child.nodeName) {
      old.insertBefore(child, next);
      activate(child);
    } else {
      if (match === next) next = next.nextSibling;
      else old.insertBefore(match, next);
      morph(match, child);
    }
  }
  while (next) next = removed(next);
}

/** @param {ChildNode} node @returns {ChildNode | null} the one behind it */
function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Gives the focus back to an element that was moved, or replaced by one with its id. @param {() => void} change */
function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (!focused || focused === document.body || focused === document.activeElement) return;
  const now = focused.isConnected ? focused : focused.id && document.getElementById(focused.id);
  if (now) /** @type {HTMLElement} */ (now).focus({ preventScroll: true });
}

/** Lets htmx, if the page has it, find its attributes. @param {Node} node */
function activate(node) {
  if (node instanceof Element) /** @type {any} */ (globalThis).htmx?.process(node);
}

customElements.define("wsloop-live", LiveElement);

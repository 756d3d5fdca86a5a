/**
 * Shows the messages of a room, each once, in the order of their numbers. A list at its bottom follows new messages; a
 * list that is scrolled up stays where it is. The page counts unseen messages and marks the first of them.
 * Messages that were unread when the page was opened may begin above the visible part: then the page says so, and no
 * message counts as seen until the reader has scrolled there.
 * Texts and names are set as text, never as HTML.
 */

import { arrange } from "./arrange.js";
import { avatar } from "./people.js";
import { dayOf, exactly, timeOf } from "./times.js";
import { newText } from "./words.js";

/** @typedef {{number: number, author: string, text: string, sent_at: string, key: string | null}} Message */

const AT_BOTTOM = 48; // pixels from the bottom within which the list follows new messages
const MOST = 500; // messages shown at a time; a page may stay open for days

/**
 * @param {HTMLElement} page
 * @param {string | undefined} me the user's name
 * @param {() => void} onSeen called when the user has seen all messages shown
 */
export function feedOf(page, me, onSeen) {
  /** @param {string} selector @returns {HTMLElement} */
  const find = (selector) => /** @type {HTMLElement} */ (page.querySelector(selector));
  const [scroll, list, pending] = ["[data-scroll]", "[data-talk]", "[data-pending]"].map(find);
  const [nothing, toNewest] = ["[data-nothing]", "[data-to-newest]"].map(find);
  const [earlier, earlierLink] = ["[data-earlier-box]", "[data-earlier]"].map(find);
  const toNew = /** @type {HTMLElement | null} */ (page.querySelector("[data-to-new]"));
  const title = document.title;
  let last = Number(page.dataset.last);
  let seenTo = 0;
  let unseen = 0;
  /** @type {number | null} the number of the first message that is marked as new */
  let newFrom = list.querySelector("[data-new]") ? Number(page.dataset.read) + 1 : null;
  let missed = toNew !== null; // the reader has not reached the first new message
  let loading = false; // earlier messages

  // The list's box is a reversed column: its scrollTop is 0 at the bottom, and negative above.
  const atBottom = () => scroll.scrollTop > -AT_BOTTOM;
  const watched = () => document.visibilityState === "visible" && atBottom();

  /** @returns {HTMLElement[]} */
  const items = () => [...list.querySelectorAll(".said")].map((item) => /** @type {HTMLElement} */ (item));

  /** @param {Message[]} messages @returns {Message[]} the new ones */
  function show(messages) {
    const fresh = messages.filter(({ number }) => number > last);
    if (fresh.length === 0) return [];
    const mine = fresh.some(({ author }) => author === me);
    const follow = atBottom();
    if (!watched() && !mine) {
      if (unseen === 0 && !missed) newFrom = fresh[0].number;
      unseen += fresh.length;
    }
    keepingPlace(!follow, () => {
      for (const { key } of fresh) if (key) unpend(key);
      list.append(...fresh.map(make));
      last = fresh[fresh.length - 1].number;
      if (follow && !loading) shorten(); // while earlier messages load, they must join the oldest one shown
      tidy();
    });
    seen();
    return fresh;
  }

  /** Removes the oldest of too many messages; the link to earlier messages leads to them. */
  function shorten() {
    const all = items();
    for (const item of all.slice(0, Math.max(0, all.length - MOST))) item.remove();
    if (all.length > MOST) offerEarlier(true);
  }

  /** Places dividers and names among the messages that are shown. */
  function tidy() {
    for (const divider of list.querySelectorAll(".divider")) divider.remove();
    const all = items();
    const said = all.map((item) => ({
      number: numberOf(item),
      author: String(item.dataset.author),
      sent: new Date(/** @type {HTMLTimeElement} */ (item.querySelector("time")).dateTime),
    }));
    arrange(said, newFrom).forEach(({ newDay, isNew, continued }, index) => {
      const item = all[index];
      item.classList.toggle("continued", continued);
      if (newDay) item.before(divider("day", dayOf(said[index].sent)));
      if (isNew) item.before(divider("new", "New"));
    });
    nothing.hidden = all.length > 0 || pending.children.length > 0;
  }

  /** Shows a message of the user that the server has not confirmed yet. @param {string} key @param {string} text */
  function pend(key, text) {
    const bubble = element("div", "bubble");
    bubble.append(element("p", "said-head", "Sending …"), element("p", "message-text", text));
    const item = element("li", "said own continued pending");
    item.dataset.key = key;
    item.append(bubble);
    pending.append(item);
    nothing.hidden = true;
    toBottom();
  }

  /** Removes such a message. @param {string} key */
  function unpend(key) {
    for (const item of pending.querySelectorAll("li")) if (item.dataset.key === key) item.remove();
    nothing.hidden = pending.children.length > 0 || list.children.length > 0;
  }

  /** Notes whether the user has seen everything, and shows the number of unseen messages. */
  function seen() {
    lookForNew();
    if (watched()) {
      unseen = 0;
      if (!missed) seenTo = last;
      onSeen();
    }
    toNewest.hidden = unseen === 0 || atBottom();
    toNewest.textContent = newText(unseen);
    document.title = unseen > 0 ? `(${unseen}) ${title}` : title;
  }

  /** Notes whether the reader has reached the first new message. */
  function lookForNew() {
    const marker = missed && !beginsAbove() && list.querySelector("[data-new]");
    if (!marker || marker.getBoundingClientRect().bottom < scroll.getBoundingClientRect().top) return;
    if (!atBottom() && newFrom !== null) unseen = last - newFrom + 1; // the new messages are now below
    reached();
  }

  /** Returns whether the first new message is not loaded. */
  function beginsAbove() {
    const [first] = items();
    return !earlier.hidden && newFrom !== null && first !== undefined && numberOf(first) > newFrom;
  }

  function reached() {
    const focused = toNew?.contains(document.activeElement);
    missed = false;
    if (toNew) toNew.hidden = true;
    if (focused) scroll.focus({ preventScroll: true });
  }

  function toBottom() {
    scroll.scrollTop = 0;
  }

  /**
   * Changes the list without moving the messages that the user reads.
   *
   * @param {boolean} keep
   * @param {() => void} change
   */
  function keepingPlace(keep, change) {
    const edge = scroll.getBoundingClientRect().top;
    const anchor = keep && items().find((item) => item.getBoundingClientRect().bottom > edge);
    const before = anchor && anchor.getBoundingClientRect().top;
    change();
    if (anchor && before !== undefined) scroll.scrollTop += anchor.getBoundingClientRect().top - Number(before);
  }

  /** @param {boolean} some whether there are earlier messages */
  function offerEarlier(some) {
    const [first] = items();
    earlier.hidden = !some || !first;
    if (first) earlierLink.setAttribute("href", `?before=${numberOf(first)}`);
  }

  /** @returns {Promise<boolean>} whether there are more messages than before */
  async function loadEarlier() {
    if (loading) return false;
    let loaded = false;
    loading = true;
    earlierLink.setAttribute("aria-disabled", "true");
    const { href } = /** @type {HTMLAnchorElement} */ (earlierLink);
    try {
      const response = await fetch(href, { headers: { Accept: "application/json" } });
      const page = await response.json();
      // Screen readers announce new messages, not earlier ones.
      scroll.setAttribute("aria-live", "off");
      keepingPlace(true, () => {
        list.prepend(...page.messages.map(make));
        tidy();
      });
      offerEarlier(page.earlier);
      if (earlier.hidden) scroll.focus({ preventScroll: true });
      earlierLink.textContent = "Earlier messages";
      loaded = true;
      setTimeout(() => scroll.removeAttribute("aria-live"), 1000);
    } catch {
      earlierLink.textContent = "Loading failed. Try again";
    }
    earlierLink.removeAttribute("aria-disabled");
    loading = false;
    return loaded;
  }

  async function goToNew() {
    while (beginsAbove()) if (!(await loadEarlier())) break;
    list.querySelector("[data-new]")?.scrollIntoView({ block: "start" });
    seen();
  }

  earlierLink.addEventListener("click", (event) => {
    event.preventDefault();
    loadEarlier();
  });
  toNew?.querySelector("a")?.addEventListener("click", (event) => {
    if (newFrom === null || last - newFrom >= MOST) return; // too many for this page: the link leads to another page
    event.preventDefault();
    goToNew();
  });
  const allRead = /** @type {HTMLElement | null | undefined} */ (toNew?.querySelector("[data-all-read]"));
  allRead?.addEventListener("click", () => {
    reached();
    unseen = 0;
    seenTo = last;
    onSeen();
    seen();
  });
  toNewest.addEventListener("click", () => {
    toBottom();
    scroll.focus({ preventScroll: true });
    seen();
  });
  scroll.addEventListener("scroll", seen, { passive: true });
  document.addEventListener("visibilitychange", seen);
  tidy();
  if (toNew) toNew.hidden = false;
  if (allRead) allRead.hidden = false;
  lookForNew();

  /** @param {Message} message @returns {HTMLElement} */
  function make({ number, author, text, sent_at: sentAt }) {
    const sent = new Date(sentAt);
    const time = element("time", "", timeOf(sent));
    time.setAttribute("datetime", sentAt);
    time.title = exactly(sent);
    const head = element("p", "said-head");
    head.append(element("span", "sender", author));
    if (author === me) head.append(element("span", "visually-hidden", " (you)"));
    head.append(" ", time);
    const bubble = element("div", "bubble");
    bubble.append(head, element("p", "message-text", text));
    const item = element("li", author === me ? "said own" : "said");
    item.dataset.number = String(number);
    item.dataset.author = author;
    item.append(avatar(author), bubble);
    return item;
  }

  return {
    show,
    seen,
    pend,
    unpend,
    /**
     * The server has stored a message of the user. If the page shows it already, it was sent twice.
     *
     * @param {string} key
     * @param {number} number
     */
    stored(key, number) {
      if (number <= last) unpend(key);
    },
    /** The number up to which all messages are shown. */
    get last() {
      return last;
    },
    /** The number up to which the user has seen all messages. */
    get seenTo() {
      return seenTo;
    },
  };
}

/** @param {Element} item @returns {number} */
function numberOf(item) {
  return Number(/** @type {HTMLElement} */ (item).dataset.number);
}

/** @param {"day" | "new"} kind @param {string} text @returns {HTMLElement} */
function divider(kind, text) {
  const item = element("li", kind === "new" ? "divider new" : "divider", text);
  item.dataset[kind] = "";
  return item;
}

/** @param {string} tag @param {string} className @param {string} [text] @returns {HTMLElement} */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

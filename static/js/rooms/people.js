/** Shows who is in the room and who is typing. */

import { face, guestsText, typingText } from "./words.js";

/** @typedef {import("../../wsloop/wsloop.js").PresenceChange} PresenceChange */

const TYPING = 6000; // milliseconds without a notice after which a user no longer counts as typing

/**
 * Keeps track of the users who are typing.
 *
 * @param {(names: string[]) => void} show called with the names when they change
 */
export function typing(show) {
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  const timers = new Map();
  const changed = () => show([...timers.keys()]);

  /** @param {string} name */
  function stop(name) {
    clearTimeout(timers.get(name));
    if (timers.delete(name)) changed();
  }

  return {
    /** @param {string} name */
    start(name) {
      clearTimeout(timers.get(name));
      const known = timers.has(name);
      timers.set(
        name,
        setTimeout(() => stop(name), TYPING),
      );
      if (!known) changed();
    },
    stop,
    clear() {
      for (const name of [...timers.keys()]) stop(name);
    },
  };
}

/**
 * @param {HTMLElement} page
 * @param {string | undefined} me the user's name
 */
export function peopleOf(page, me) {
  const list = /** @type {HTMLElement} */ (page.querySelector("[data-people-list]"));
  const count = /** @type {HTMLElement} */ (page.querySelector("[data-people-count]"));
  const guests = /** @type {HTMLElement} */ (page.querySelector("[data-guests]"));
  const asOf = /** @type {HTMLElement} */ (page.querySelector("[data-as-of]"));
  const typingLine = /** @type {HTMLElement} */ (page.querySelector("[data-typing]"));
  /** @type {Set<string>} */
  let users = new Set();
  let anonymous = 0;

  /** @param {boolean} old whether the list is from before the connection broke */
  function mark(old) {
    asOf.hidden = !old;
    list.classList.toggle("old", old);
  }

  function show() {
    list.replaceChildren(...[...users].sort().map(person));
    guests.textContent = guestsText(anonymous);
    count.textContent = String(users.size + anonymous);
  }

  /** @param {string} name */
  function person(name) {
    const words = document.createElement("span");
    words.className = "person-name";
    words.textContent = name === me ? `${name} (you)` : name;
    const item = document.createElement("li");
    item.className = "person";
    item.append(avatar(name), words);
    return item;
  }

  const typists = typing((names) => {
    typingLine.textContent = typingText(names);
  });
  return {
    typists,
    /** @param {string[]} names @param {number} number of guests */
    set(names, number) {
      // The user is present, even if the server does not know it yet.
      users = new Set(me === undefined ? names : [...names, me]);
      anonymous = me === undefined ? Math.max(number, 1) : number;
      mark(false);
      show();
    },
    /** @param {PresenceChange} change */
    change(change) {
      if (change.event === "anonymous") anonymous = change.count;
      else if (change.event === "join") users.add(change.user);
      else {
        users.delete(change.user);
        typists.stop(change.user);
      }
      show();
    },
    /** Marks the list as old until the server sends a new one. */
    lineIsBroken() {
      mark(true);
    },
    /** Empties the list: the connection has ended for good. */
    forget() {
      mark(false);
      list.replaceChildren();
      guests.textContent = "The list of people is no longer available.";
      count.textContent = "";
    },
  };
}

/** @param {string} name @returns {HTMLElement} */
export function avatar(name) {
  const { initial, tone } = face(name);
  const element = document.createElement("span");
  element.className = "avatar";
  element.dataset.tone = String(tone);
  element.setAttribute("aria-hidden", "true");
  element.textContent = initial;
  return element;
}

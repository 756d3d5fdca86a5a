/** Formats days and times for the time zone and language of the reader; the server renders them in UTC. */

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const BOTH = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** @param {Date} date */
export const timeOf = (date) => TIME.format(date);

/** @param {Date} date */
export const dayOf = (date) => DAY.format(date);

/** @param {Date} date */
export const exactly = (date) => EXACT.format(date);

const WRITTEN = ".said time, .room-time"; // rendered by the server

/** @param {ParentNode} root contains the times of messages to format again */
export function localise(root) {
  for (const time of /** @type {NodeListOf<HTMLTimeElement>} */ (root.querySelectorAll(WRITTEN))) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    time.textContent = (time.matches(".room-time") ? BOTH : TIME).format(date);
    time.title = exactly(date);
  }
}

/** Arranges messages: the day and name above each one, and the first new one. */

/** @typedef {{number: number, author: string, sent: Date}} Said */
/** @typedef {{newDay: boolean, isNew: boolean, continued: boolean}} Place */

const CONTINUED = 300_000; // milliseconds within which messages of one author share one name

/**
 * @param {Said[]} messages in their order
 * @param {number | null} newFrom the number of the first new message; null: none is new
 * @returns {Place[]} for each message
 */
export function arrange(messages, newFrom) {
  /** @type {Said | undefined} */
  let previous;
  return messages.map((message) => {
    const newDay = previous?.sent.toDateString() !== message.sent.toDateString();
    const isNew = newFrom !== null && message.number >= newFrom && (previous?.number ?? 0) < newFrom;
    const continued =
      !newDay &&
      !isNew &&
      previous?.author === message.author &&
      message.sent.getTime() - previous.sent.getTime() < CONTINUED;
    previous = message;
    return { newDay, isNew, continued };
  });
}

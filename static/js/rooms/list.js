/** The list of rooms: loads the numbers of unread messages again when the user returns to the page. */

import { localise } from "./times.js";

export function start() {
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") reload();
  });
  // After going back, the browser may show the page in its state when left, or when loaded.
  addEventListener("pageshow", ({ persisted }) => persisted && reload());
  const [navigation] = performance.getEntriesByType("navigation");
  const { type } = /** @type {PerformanceNavigationTiming} */ (navigation);
  if (type === "back_forward") reload(); // this script may come later than the page's own "pageshow"
}

async function reload() {
  let page;
  try {
    // Going back, the browser would take the answer out of its cache, too.
    const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-cache" });
    if (!response.ok) return;
    page = new DOMParser().parseFromString(await response.text(), "text/html");
  } catch {
    return; // the page keeps what it shows
  }
  const [shown, fresh] = [document, page].map((each) => each.querySelector("[data-rooms]"));
  if (!shown || !fresh) return;
  localise(fresh);
  const focused = shown.contains(document.activeElement) && document.activeElement?.getAttribute("href");
  shown.replaceWith(document.adoptNode(fresh));
  for (const link of fresh.querySelectorAll("a")) if (focused && link.getAttribute("href") === focused) link.focus();
}

/** The list of rooms: loads the numbers of unread messages again when the user returns to the page. */

import { localise } from "./times.js";

export function start() {
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") reload();
  });
  // After going back, the browser may show the page in its state when left, or when loaded.
  addEventListener("pageshow", ({ persisted }) => {
    const [navigation] = performance.getEntriesByType("navigation");
    const back = /** @type {PerformanceNavigationTiming | undefined} */ (navigation)?.type === "back_forward";
    if (persisted || back) reload();
  });
}

async function reload() {
  let page;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
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

/** The list of rooms: what is unread is looked up again whenever somebody comes back to the page. */

import { localise } from "./times.js";

export function start() {
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") reload();
  });
  // Who goes back may be shown the page as it was left, or as it was loaded then.
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
    return; // what is shown is the best there is
  }
  const [shown, fresh] = [document, page].map((each) => each.querySelector("[data-rooms]"));
  if (!shown || !fresh) return;
  localise(fresh);
  const focused = shown.contains(document.activeElement) && document.activeElement?.getAttribute("href");
  shown.replaceWith(document.adoptNode(fresh));
  for (const link of fresh.querySelectorAll("a")) if (focused && link.getAttribute("href") === focused) link.focus();
}

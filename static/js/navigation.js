/** Closes the menus of the navigation as menus close: by Escape, by a click beside them, and when the focus leaves. */

/** @param {HTMLElement} navigation contains `details` */
export function start(navigation) {
  /** @param {(menu: HTMLDetailsElement) => boolean} isMeant */
  function close(isMeant) {
    for (const menu of navigation.querySelectorAll("details")) if (menu.open && isMeant(menu)) menu.open = false;
  }
  document.addEventListener("click", ({ target }) => close((menu) => !menu.contains(/** @type {Node} */ (target))));
  navigation.addEventListener("focusout", ({ relatedTarget }) => {
    // A click on what takes no focus leaves with no target; the listener above sees to it.
    if (relatedTarget) close((menu) => !menu.contains(/** @type {Node} */ (relatedTarget)));
  });
  navigation.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    close((menu) => {
      if (menu.contains(document.activeElement)) menu.querySelector("summary")?.focus();
      return true;
    });
  });
}

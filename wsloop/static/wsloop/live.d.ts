/**
 * Keeps the parts of a page up to date that the template tag `live` has rendered: `<wsloop-live>` with `data-url`, the
 * URL of its socket, and `data-token`, where that starts. HTML that arrives is swapped into the page by the ids of its
 * outermost elements (docs/how-to/htmx.rst). When messages were lost for good, the page is fetched again, and the part
 * brought up to date from it.
 *
 * An element is changed only where it differs, so that the focus, the scroll position and what somebody is typing stay.
 */
/**
 * Swaps HTML into the page. Each outermost element replaces the one with its id; its attribute `hx-swap-oob` may say
 * something else, in htmx's words: "afterbegin", "delete", "beforeend:#orders" … Scripts in it do not run. An element
 * that is to be inserted, and is there already, is brought up to date instead: the same HTML may come again.
 *
 * @param {string} html
 */
export declare function swap(html: string): void;

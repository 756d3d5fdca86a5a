// What the page loads from the development server. Vite would write the first lines into a page of its own, as an inline
// script, which a Content-Security-Policy forbids.

// @ts-expect-error: a path of the development server
import { injectIntoGlobalHook } from "/@react-refresh";

injectIntoGlobalHook(window);
window.$RefreshReg$ = () => {};
window.$RefreshSig$ = () => (type) => type;

await import("./main.tsx");

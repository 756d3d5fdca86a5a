/**
 * Lets Node find modules as browsers do: below STATIC_URL the files of static/ and of wsloop/static/ are side by side.
 * For `node --import ./tests/js/static-files.js`.
 */

import { register } from "node:module";
import { isMainThread } from "node:worker_threads";

const ROOT = new URL("../../", import.meta.url).href;

if (isMainThread) register(import.meta.url); // Node runs `resolve` in a thread of its own

/** @type {import("node:module").ResolveHook} */
export function resolve(specifier, context, nextResolve) {
  if (!specifier.startsWith(".")) return nextResolve(specifier, context);
  const { href } = new URL(specifier, context.parentURL);
  return nextResolve(href.replace(`${ROOT}static/wsloop/`, `${ROOT}wsloop/static/wsloop/`), context);
}

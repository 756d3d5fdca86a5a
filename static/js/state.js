/** Shows the state of a connection: to a facility, to a consumer, or one that the user has stopped or unplugged. */

/**
 * @typedef {import("../wsloop/wsloop.js").State
 *   | import("../wsloop/wsloop.js").ConsumerState
 *   | {name: "stopped" | "unplugged"}} State
 */

/**
 * Shows the state and counts down to the next attempt. Screen readers announce the state, but not each second.
 *
 * @param {HTMLElement} line contains elements with `data-state-text` and `data-countdown`; gets `data-state`, for its
 *   colour
 * @returns {(state: State) => void}
 */
export function stateOf(line) {
  const words = /** @type {HTMLElement} */ (line.querySelector("[data-state-text]"));
  const countdown = /** @type {HTMLElement} */ (line.querySelector("[data-countdown]"));
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let ticking;
  return (state) => {
    clearInterval(ticking);
    countdown.textContent = "";
    line.dataset.state = state.name;
    const text = "reason" in state ? `${state.name} (${state.reason})` : state.name;
    if (words.textContent !== text) words.textContent = text;
    if (state.name !== "reconnecting") return;
    let seconds = Math.ceil(state.seconds);
    const tick = () => {
      countdown.textContent = seconds > 0 ? ` in ${seconds} s` : " …";
      seconds -= 1;
    };
    tick();
    ticking = setInterval(tick, 1000);
  };
}

/** Lets the stations of the way light up one after the other, with a dot that runs along the wire between them. */

const STEP = 220; // milliseconds from one station to the next: slow motion, for the eye
const LIT = 650; // milliseconds that a station stays lit

const reduced = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * @param {HTMLElement} list contains the stations, elements with `data-station`, in the order of the way
 * @returns {(from: string, to: string) => void} lights the stations between these two
 */
export function lightsOf(list) {
  const stations = /** @type {HTMLElement[]} */ ([...list.querySelectorAll("[data-station]")]);
  /** @type {Map<HTMLElement, ReturnType<typeof setTimeout>>} */
  const ending = new Map();

  /** @param {HTMLElement} station */
  function light(station) {
    clearTimeout(ending.get(station));
    station.dataset.lit = "";
    const end = setTimeout(() => delete station.dataset.lit, LIT);
    ending.set(station, end);
  }

  return (from, to) => {
    const names = stations.map(({ dataset }) => dataset.station);
    const chosen = stations.slice(names.indexOf(from), names.indexOf(to) + 1);
    if (reduced.matches) return chosen.forEach(light); // all at once: nothing moves
    for (const [index, station] of chosen.entries()) {
      setTimeout(light, index * STEP, station);
      const wire = station.querySelector(".wire");
      if (index > 0 && wire) setTimeout(run, (index - 1) * STEP, wire);
    }
  };
}

/** @param {Element} wire */
function run(wire) {
  const dot = document.createElement("span");
  dot.className = "dot";
  wire.append(dot);
  setTimeout(() => dot.remove(), STEP); // not at the end of the animation: a hidden page has none
}

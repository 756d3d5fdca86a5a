/** Draws lines over time, in pixels, so that texts have the same size on every screen. */

const MARGIN = { top: 10, right: 8, bottom: 20, left: 62 }; // pixels around the plot, for the labels of its axes

const SHORTEST = 60; // seconds from the left to the right

/** @typedef {{name: string, values: (number | null)[]}} Line a value for each time; null: there is none */

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 * @returns {SVGElement}
 */
function make(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.textContent = text;
  return element;
}

/** @param {number} most @returns {number} a round number above */
export function axisEnd(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return (/** @type {number} */ ([1, 2, 5, 10].find((step) => step * power >= most))) * power;
}

/**
 * Returns the way of a pen along a line, which is lifted where there is no value.
 *
 * @param {(number | null)[]} values
 * @param {(index: number) => number} x
 * @param {(value: number) => number} y
 * @returns {string}
 */
export function way(values, x, y) {
  let isDown = false;
  return values
    .map((value, index) => {
      if (value === null) {
        isDown = false;
        return "";
      }
      const step = `${isDown ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      isDown = true;
      return step;
    })
    .join("");
}

/**
 * @param {SVGSVGElement} plot
 * @param {number[]} times seconds, the newest last
 * @param {Line[]} lines
 * @param {(value: number) => string} format
 * @param {string} none what it says without a value
 */
export function draw(plot, times, lines, format, none) {
  const { width, height } = plot.getBoundingClientRect();
  const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
  if (right <= left || !times.length) return;
  const newest = times[times.length - 1];
  const span = Math.max(SHORTEST, newest - times[0]);
  const most = Math.max(0, ...lines.flatMap(({ values }) => values.filter((value) => value !== null)));
  const end = axisEnd(most);
  const x = (/** @type {number} */ index) => right - ((newest - times[index]) / span) * (right - left);
  const y = (/** @type {number} */ value) => bottom - (value / end) * (bottom - top);
  plot.replaceChildren(
    ...[0, end / 2, end].flatMap((value) => [
      make("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      make("text", { class: "y", x: left - 8, y: y(value) }, value ? format(value) : "0"),
    ]),
    make("text", { class: "x first", x: left, y: height - 4 }, `${span < 120 ? `${Math.round(span)} s` : `${Math.round(span / 60)} min`} ago`),
    make("text", { class: "x last", x: right, y: height - 4 }, "now"),
    ...lines.map(({ values }, index) => make("path", { class: `line-${index}`, d: way(values, x, y) })),
  );
  if (lines.every(({ values }) => values.every((value) => value === null))) {
    plot.append(make("text", { class: "empty", x: (left + right) / 2, y: (top + bottom) / 2 - 6 }, none));
  }
  const told = lines.map(({ name, values }) => `${name}: ${tell(values, format)}`).join("; ");
  plot.setAttribute("aria-label", `Over the last minutes. ${told}`);
}

/** @param {(number | null)[]} values @param {(value: number) => string} format @returns {string} for those who do not see it */
function tell(values, format) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null));
  if (!known.length) return "no value";
  return `now ${format(known[known.length - 1])}, least ${format(Math.min(...known))}, most ${format(Math.max(...known))}`;
}

/** Draws the latest round trips as columns of three parts: the view, Redis and the rest. */

import { make } from "../svg.js";
import { axisEnd, partsOf } from "./journeys.js";

const COLUMNS = 40;
const LABELLED = 5; // every fifth column has the number of its message below
const MARGIN = { top: 16, right: 8, bottom: 22, left: 56 }; // pixels around the plot, for the labels of its axes
const SHORTEST_AXIS = 10; // milliseconds

/**
 * Draws in pixels, so that texts have the same size on every screen. The newest column is on the right of the others.
 *
 * @param {SVGSVGElement} plot
 * @param {import("./journeys.js").Trip[]} trips the newest last
 */
export function draw(plot, trips) {
  const { width, height } = plot.getBoundingClientRect();
  const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom];
  const end = axisEnd(Math.max(SHORTEST_AXIS, ...trips.map(({ total }) => total)));
  const step = (right - left) / COLUMNS;
  /** @param {number} milliseconds */
  const y = (milliseconds) => bottom - (milliseconds / end) * (bottom - top);
  plot.replaceChildren(
    ...[0, end / 2, end].flatMap((value) => [
      make("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      make("text", { class: "y", x: left - 8, y: y(value) }, value ? `${value} ms` : "0"),
    ]),
    ...trips.slice(-COLUMNS).flatMap((trip, index) => {
      const x = left + index * step;
      const { view, redis, rest } = partsOf(trip) ?? { view: 0, redis: 0, rest: trip.total };
      const column = (/** @type {string} */ part, /** @type {number} */ from, /** @type {number} */ to) =>
        make("rect", {
          "data-part": part,
          x: x + step * 0.15,
          width: Math.max(0, step * 0.7),
          y: y(to),
          height: Math.max(0, y(from) - y(to)),
        });
      return [
        column("view", 0, view),
        column("redis", view, view + redis),
        column("rest", view + redis, view + redis + rest),
        ...(index % LABELLED === 0
          ? [make("text", { class: "x", x: x + step / 2, y: height - 5 }, String(trip.number))]
          : []),
      ];
    }),
  );
}

"""Plots as SVG, for light and for dark pages. Knows nothing about what they show."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Spread

WIDTH, LEFT, BAR = 720, 230, 26
# Of the plot's parts, on a light and on a dark page.
COLOURS = {
    "back": ("#ffffff", "#0d1117"),
    "ink": ("#24292f", "#e6edf3"),
    "soft": ("#57606a", "#9198a1"),
    "faint": ("#d8dee4", "#30363d"),
    "ours": ("#0969da", "#4493f8"),
    "other": ("#a5aeb8", "#59636e"),
    "second": ("#8250df", "#ab7df8"),
    "third": ("#bc4c00", "#db6d28"),
    "alarm": ("#cf222e", "#f85149"),
}
SERIES = "ours", "second", "third", "soft", "alarm"


def document(height: float, shapes: Sequence[str]) -> str:
    """Return a whole plot."""

    def rules(number: int) -> str:
        each = [f".{name} {{ fill: {colours[number]} }}" for name, colours in COLOURS.items()]
        each += [f".{name}-line {{ stroke: {colours[number]}; fill: none }}" for name, colours in COLOURS.items()]
        return "\n".join(each)

    style = f"{rules(0)}\n@media (prefers-color-scheme: dark) {{\n{rules(1)}\n}}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-size="13"',
        f'font-family="system-ui, sans-serif">\n<style>\n{style}\n</style>',
        f'<rect class="back" width="{WIDTH}" height="{height:.0f}" rx="6"/>',
        *shapes,
        "</svg>\n",
    ]
    return "\n".join(parts)


def text(x: float, y: float, words: str, colour: str = "ink", **attributes: Any) -> str:
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text class="{colour}" x="{x:.1f}" y="{y:.1f}"{extra}>{html.escape(words)}</text>'


def line(colour: str, path: str, width: float = 1, **attributes: Any) -> str:
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<path class="{colour}-line" d="{path}" stroke-width="{width:g}"{extra}/>'


def box(colour: str, x: float, y: float, width: float, height: float) -> str:
    size = f'width="{max(0.0, width):.1f}" height="{height:.1f}"'
    return f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" {size} rx="2"/>'


def titled(title: str, under: str, top: float) -> list[str]:
    """Return a title, and what is to be said under it."""
    return [
        text(20, top + 24, title, font_size=15, font_weight=600),
        text(20, top + 42, under, "soft"),
    ]


def bars(title: str, under: str, rows: Sequence[tuple[str, Spread, str]], top: float = 0) -> tuple[list[str], float]:
    """Return a bar for each row on a logarithmic scale, a line for its spread, and a label; and where the plot ends.

    Args:
        rows: name, figure and label; those of wsloop begin with its name.
    """
    lowest = math.floor(math.log10(min(spread.low for _, spread, _ in rows)))
    decades = max(1, math.ceil(math.log10(max(spread.high for _, spread, _ in rows))) - lowest)
    first, span = top + 62, WIDTH - LEFT - 150
    bottom = first + BAR * len(rows)

    def at(value: float) -> float:
        return LEFT + span * min(1.0, max(0.0, (math.log10(value) - lowest) / decades))

    shapes = titled(title, under, top)
    for decade in range(decades + 1):
        x = LEFT + span * decade / decades
        shapes.append(line("faint", f"M{x:.1f} {first - 6:.1f}V{bottom:.1f}"))
        shapes.append(text(x, bottom + 16, f"{10.0 ** (lowest + decade):,.10g}", "soft", text_anchor="middle"))
    for number, (name, spread, label) in enumerate(rows):
        y = first + BAR * number
        shapes.append(text(LEFT - 8, y + 14, name, text_anchor="end"))
        shapes.append(box("ours" if name.startswith("wsloop") else "other", LEFT, y, at(spread.median) - LEFT, BAR - 8))
        if spread.high > spread.low:
            middle, low, high = y + BAR / 2 - 4, at(spread.low), at(spread.high)
            path = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
            shapes.append(line("ink", path, 1.2))
        shapes.append(text(max(at(spread.high), at(spread.median)) + 8, y + 14, label))
    return shapes, bottom + 34


def lines(
    title: str,
    under: str,
    series: Mapping[str, Sequence[tuple[float, Spread]]],
    top: float = 0,
    height: float = 170,
) -> tuple[list[str], float]:
    """Return a line for each series, with its spread as an area behind it; and where the plot ends.

    Raises:
        ValueError: if there are more series than colours.
    """
    left, right = 60.0, WIDTH - 30.0
    legend, place, row = [], left, top + 56
    for name in series:
        width = 40 + 7 * len(name)
        if place + width > WIDTH and place > left:
            place, row = left, row + 20
        legend.append((place, row))
        place += width
    first = row + 28
    bottom = first + height
    most = max(x for points in series.values() for x, _ in points)
    highest = _round(max(spread.high for points in series.values() for _, spread in points))

    def at(x: float, y: float) -> str:
        return f"{left + x / most * (right - left):.1f} {bottom - y / highest * height:.1f}"

    shapes = titled(title, under, top)
    for part in range(5):
        y = bottom - part / 4 * height
        shapes.append(line("faint", f"M{left} {y:.1f}H{right}"))
        shapes.append(text(left - 8, y + 4, f"{highest * part / 4:,.6g}", "soft", text_anchor="end"))
    last = -100.0
    for x in sorted({x for points in series.values() for x, _ in points}):
        place = left + x / most * (right - left)
        if place - last > 45:  # pixels: labels do not overlap
            shapes.append(text(place, bottom + 18, f"{x:,.0f}", "soft", text_anchor="middle"))
            last = place
    for colour, (name, points), (x, y) in zip(SERIES[: len(series)], series.items(), legend, strict=True):
        ahead = "L".join(at(step, spread.high) for step, spread in points)
        back = "L".join(at(step, spread.low) for step, spread in reversed(points))
        shapes.append(f'<path class="{colour}" fill-opacity="0.18" d="M{ahead}L{back}Z"/>')
        shapes.append(line(colour, "M" + "L".join(at(step, spread.median) for step, spread in points), 2))
        for step, spread in points:
            cx, cy = at(step, spread.median).split()
            shapes.append(f'<circle class="{colour}" cx="{cx}" cy="{cy}" r="3"/>')
        shapes.append(box(colour, x, y, 12, 12))
        shapes.append(text(x + 18, y + 10, name))
    return shapes, bottom + 34


def _round(value: float) -> float:
    """Return the next larger number of one digit, or 1.2, 1.6, 2.4 …, that four divides well."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * each for each in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if unit * each >= value)

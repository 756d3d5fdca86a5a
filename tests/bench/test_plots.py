"""The plots of the measurements: nothing that was measured is left out, or beyond the edge."""

import re

import pytest

from bench import plots
from bench.record import Spread

POINTS = [(step, Spread(step, step, step)) for step in (100, 1000)]


def test_each_line_has_a_colour_and_a_name_within_the_plot():
    names = [f"a name that is rather long, {number}" for number in range(len(plots.SERIES))]
    shapes, _ = plots.lines("title", "under", dict.fromkeys(names, POINTS))
    for name in names:
        (x,) = re.findall(rf'x="([\d.]+)"[^>]*>{name}<', "".join(shapes))
        assert float(x) + 7 * len(name) < plots.WIDTH
    for colour in plots.SERIES:
        assert sum(f'class="{colour}-line"' in each for each in shapes) == 1


def test_more_lines_than_colours_are_an_error():
    with pytest.raises(ValueError, match="longer"):
        plots.lines("title", "under", {str(number): POINTS for number in range(len(plots.SERIES) + 1)})

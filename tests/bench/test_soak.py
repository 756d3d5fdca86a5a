"""``make soak`` in little: see ``bench/soak.py``."""

import random

import pytest

from bench.soak import soak
from tests.requires import need


@pytest.mark.timeout(240)
def test_a_short_soak():
    need("redis-server")
    verdict, published, done = soak(8, random.Random(4), clients=40, least=3)
    assert published > 8
    assert sum(count for _, count in done) >= 3
    assert verdict.honest, str(verdict)

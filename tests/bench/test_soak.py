"""``make soak`` in little: see ``bench/soak.py``."""

import random

import pytest

from bench.soak import soak
from tests.requires import need


@pytest.mark.timeout(240)
def test_a_short_soak():
    need("redis-server")
    verdict, published, done = soak(15, random.Random(4), clients=40, least=5)
    assert published > 15
    assert sum(count for _, count in done) >= 5
    assert verdict.honest, str(verdict)

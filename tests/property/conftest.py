"""Fixtures of the property tests, those of the unit tests, and how long hypothesis may look for examples."""

import os

from hypothesis import HealthCheck, settings

# `bounded` is the one that every test uses.
from tests.unit.conftest import _migrated, bounded, database, with_settings  # noqa: F401

# What fixtures of one test share between its examples is meant to be shared; a slow machine is no fault of a strategy.
ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("local", deadline=None, max_examples=80, print_blob=True, suppress_health_check=ALLOWED)
# The same examples in each run: a change fails because of what it changes, and its author sees it again.
settings.register_profile("fixed", settings.get_profile("local"), derandomize=True, database=None)
# By hand, when there is time: HYPOTHESIS_PROFILE=long.
settings.register_profile("long", settings.get_profile("local"), max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("fixed" if os.environ.get("CI") else "local"))

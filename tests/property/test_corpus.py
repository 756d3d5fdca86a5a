"""The fuzzer's inputs, those from which it starts and those that have failed once; ``make fuzz`` finds new ones."""

from pathlib import Path

import pytest

from tests.fuzz import script

INPUTS = sorted(path for path in Path(script.__file__).parent.glob("c*/*") if path.name != "README")


def test_there_is_a_corpus():
    assert len(INPUTS) > 10


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_an_input_of_the_fuzzer_does_no_harm(path):
    script.run(path.read_bytes())

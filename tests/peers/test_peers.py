"""The harness of ``make peer-tests``, on a checkout that these tests write: what passes, what fails, what is listed."""

import functools
import re
import subprocess
import sys

import pytest

from tests.peers import __main__ as peers
from tests.peers import report
from tests.peers.expected import Entry, Expected
from tests.peers.suites import INSIDE, SUITES, Suite, plain_process

TESTS = """
import pathlib, pytest

@pytest.mark.parametrize("number", [1, 2])
def test_passes(number):
    pathlib.Path("written").touch()

def test_fails():
    assert "here" == "there"

def test_is_not_run():
    raise AssertionError("it was run")

@pytest.fixture
def broken():
    yield
    raise RuntimeError("at its end")

def test_has_a_broken_fixture(broken):
    pass
"""
LIST = """
[[fake]]
kind = "different"
reason = "It is elsewhere."
tests = ["tests/test_fake.py::test_fails", "tests/test_fake.py::test_has_a_broken_fixture"]

[[fake]]
kind = "not applicable"
reason = "Nobody does that."
tests = ["tests/test_fake.py::test_is_not_run"]
"""
SUITE = Suite("fake", "channels", "A fake", plain_process, ())


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "checkout/tests").mkdir(parents=True)
    (tmp_path / "checkout/tests/__init__.py").touch()
    (tmp_path / "checkout/tests/test_fake.py").write_text(TESTS)
    return tmp_path / "checkout"


@pytest.fixture
def run(checkout, tmp_path, capsys):
    """Run the tests of the checkout with a list, and return the exit status and the lines printed."""

    def call(text, *options):
        (tmp_path / "list").write_text(text)
        arguments = ["--channels", str(checkout), "--list", str(tmp_path / "list"), *options]
        try:
            peers.main(arguments, {"fake": SUITE})
        except SystemExit as end:
            return end.code, capsys.readouterr().out.splitlines()
        return 0, capsys.readouterr().out.splitlines()

    return call


def test_everything_is_as_the_list_says(run, checkout):
    status, lines = run(LIST)
    assert (status, lines[1:]) == (0, ["A fake: 2 passed, 2 different, 1 not applicable"])
    assert not (checkout / "written").exists(), "the tests ran in the checkout itself"


def test_what_the_list_does_not_say_is_a_failure(run, checkout):
    (checkout / "tests/test_other.py").write_text("import nothing_of_this_name\n")
    listed = ("test_fails", "test_has_a_broken_fixture", "test_is_not_run")
    wrong = ("test_passes[1]", "test_is_gone", "test_is_not_run")
    text = functools.reduce(lambda text, pair: text.replace(*pair), zip(listed, wrong, strict=True), LIST)
    status, lines = run(text)
    expected = [
        r"A fake: 1 passed, 1 different, 1 not applicable, 3 failed",
        r"failed: tests/test_other.py: cannot be imported: .*nothing_of_this_name.*",
        r"the list is stale, this passes: tests/test_fake.py::test_passes\[1\]",
        r"failed: tests/test_fake.py::test_fails: .*'here' == 'there'.*",
        r"failed: tests/test_fake.py::test_has_a_broken_fixture: .*at its end.*",
        r"the list is stale, there is no such test: tests/test_fake.py::test_is_gone",
    ]
    assert status == 1
    assert len(lines) == 1 + len(expected)
    assert [line for line, told in zip(lines[1:], expected, strict=True) if not re.fullmatch(" *" + told, line)] == []


@pytest.mark.parametrize("name", ["tests/test_fake.py::test_passes", "tests/test_fake.py", "tests"])
def test_a_name_stands_for_all_tests_in_it(name):
    expected = Expected([Entry("different", "a reason", (name,))])
    outcomes = {"tests/test_fake.py::test_passes[1]": "passed", "tests/test_fake.py::test_passes[2]": "it broke"}
    stale = ["the list is stale, this passes: tests/test_fake.py::test_passes[1]"]
    assert expected.problems(outcomes) == stale


def test_an_entry_needs_a_reason(run):
    with pytest.raises(ValueError, match="an entry needs tests, a reason, and a kind"):
        run(LIST.replace("It is elsewhere.", ""))


def test_no_test_at_all_is_a_failure(run, checkout):
    (checkout / "tests/test_fake.py").write_text("")
    assert run("") == (1, ["A fake: running ...", "A fake: no tests", "  no test was found"])


def test_pytest_that_breaks_is_an_error(run, checkout):
    (checkout / "tests/conftest.py").write_text("def pytest_runtest_logreport(report):\n    raise RuntimeError('oh')\n")
    with pytest.raises(RuntimeError, match=r"(?s)pytest has not come to its end:.*oh"):
        run(LIST)


def test_what_is_no_checkout_is_refused(run, checkout):
    (checkout / "tests").rename(checkout / "test")
    status, _ = run(LIST)
    assert "is no checkout of channels: it has no tests" in status


def test_the_page_gets_the_result_and_its_reasons(run, checkout, tmp_path, monkeypatch):
    page = tmp_path / "page.rst"
    page.write_text("Before\n\n.. results: begin\n\nold\n\n.. results: end\n\nAfter\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "PACKAGES", ("pytest",))
    assert run(LIST, "--write")[0] == 0
    text = page.read_text()
    assert text.startswith("Before\n\n.. results: begin\n\nRun on ") and text.endswith(".. results: end\n\nAfter\n")
    assert re.search(r"^``test_fake.py`` +2 +2 +0 +1$", text, re.MULTILINE) and "old" not in text
    assert "- It is elsewhere. Tests: ``test_fake.py::test_fails``, ``test_fake.py::test_has_a_broken" in text
    assert "Not applicable:\n\n- Nobody does that. Tests: ``test_fake.py::test_is_not_run``." in text
    assert run(LIST.replace("It is elsewhere.", "It is here."), "--write")[0] == 0
    assert page.read_text() == text.replace("It is elsewhere.", "It is here.")


def test_the_list_of_this_checkout_is_complete():
    for suite in SUITES:
        assert all(entry.reason for entry in Expected.read(peers.LIST, suite).entries)


def test_modules_for_the_tests_of_peers_stand_alone():
    """They must not need the package ``tests`` of this checkout, whose name that of the peers hides."""
    for module in INSIDE.glob("*.py"):
        assert not re.search(r"^(from|import) tests\b", module.read_text(), re.MULTILINE), module
    done = subprocess.run([sys.executable, "-c", "import outcomes"], cwd=INSIDE, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

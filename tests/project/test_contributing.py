"""What a contributor meets first: ``make help``, CONTRIBUTING.rst and the hooks say what is there."""

import re
import subprocess
import sys
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest

from tests.requires import need

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("arguments", [[], ["help"]], ids=["make", "make help"])
def test_make_lists_every_target(arguments):
    command = [need("make"), "--no-print-directory", *arguments]  # a make that runs this test says where it is
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^make ([a-z-]+) +(\S.*)$", answer, re.MULTILINE)
    assert len(lines) == len(answer.splitlines())
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert {name for name, _ in lines} == set(phony.replace("\\", "").split()) - {"python"}


def test_what_contributing_names_is_there():
    settings = {"report_level": 2, "halt_level": 2, "file_insertion_enabled": False}
    text = (ROOT / "CONTRIBUTING.rst").read_text()
    document = docutils.core.publish_doctree(text, settings_overrides=settings)
    links = [link["refuri"] for link in document.findall(docutils.nodes.reference) if "refuri" in link]
    names = [literal.astext() for literal in document.findall(docutils.nodes.literal)]
    paths = {name for name in [*links, *names] if re.fullmatch(r"[\w./-]+/[\w.-]+|[\w.]+\.(py|rst|md|in|toml)", name)}
    made = {".venv/bin/pre-commit"}
    assert len(paths) > 20
    assert [path for path in sorted(paths - made) if not (ROOT / path).exists()] == []


def test_the_hooks_run_what_make_lint_runs():
    hooks = re.findall(r"^ +entry: (\S+ ?[a-z_/.]*)", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    lint = lint.replace("$(VENV)", ".venv").replace("$(PYTHON)", "python3")
    commands = re.findall(r"^\t@?(\S+ ?[a-z_/.]*)", lint, re.MULTILINE)
    assert len(commands) == 4
    assert [hook.strip() for hook in hooks] == [command.strip() for command in commands]
    validate = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    assert subprocess.run(validate, cwd=ROOT, capture_output=True, text=True).stderr == ""

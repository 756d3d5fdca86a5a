"""``make lint`` for JavaScript: what it installs and when, and one line where something is missing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# An npm that installs an eslint and a tsc, and notes that it ran. They say, and return, what the environment says.
NPM = """#!/bin/sh
echo "$@" >> npm-ran
if [ -n "$NPM_SAYS" ]; then echo "a story"; echo "$NPM_SAYS"; exit 1; fi
mkdir -p node_modules/.bin
for name in eslint tsc; do
    printf '#!/bin/sh\\necho "$%s"\\n[ -z "$%s" ]\\n' $name $name > node_modules/.bin/$name
    chmod +x node_modules/.bin/$name
done
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "mkdir", "chmod"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return tmp_path


def has(checkout, node="v20.19.0"):
    for name, script in (("node", f"#!/bin/sh\necho {node}\n"), ("npm", NPM)):
        (checkout / "bin" / name).write_text(script)
        (checkout / "bin" / name).chmod(0o755)


def lint(checkout, **env):
    return subprocess.run(
        [sys.executable, ROOT / "tools/lint_javascript.py"],
        cwd=checkout,
        env={"PATH": str(checkout / "bin"), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def installations(checkout):
    return (checkout / "npm-ran").read_text().count("ci ")


def test_without_node_it_says_so_and_fails_in_ci_only(checkout):
    reason = "Node with npm is not installed (apt install nodejs npm)"
    answer = lint(checkout)
    assert (answer.returncode, answer.stdout) == (0, f"The JavaScript is not checked: {reason}\n")
    answer = lint(checkout, CI="true")
    assert (answer.returncode, answer.stderr) == (1, f"{reason} (CI=true: nothing may be missing)\n")


def test_with_an_old_node_it_says_so(checkout):
    has(checkout, node="v18.19.0")
    answer = lint(checkout)
    assert answer.returncode == 0
    assert answer.stdout == "The JavaScript is not checked: Node 18.19.0 is older than 20.19\n"
    assert lint(checkout, CI="true").returncode == 1


def test_packages_are_installed_when_they_are_stale(checkout):
    has(checkout)
    answer = lint(checkout)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Installing package-lock.json into node_modules\nnode_modules/.bin/eslint ")
    assert "Installing" not in lint(checkout).stdout
    assert installations(checkout) == 1
    with (checkout / "package-lock.json").open("a") as lock:
        lock.write("\n")
    lint(checkout)
    assert installations(checkout) == 2
    has(checkout, node="v22.13.0")
    lint(checkout)
    assert installations(checkout) == 3


def test_npm_fails(checkout):
    has(checkout)
    answer = lint(checkout, NPM_SAYS="npm error code ENOTFOUND")
    assert (answer.returncode, answer.stderr) == (1, "npm error code ENOTFOUND (full output: var/npm.log)\n")
    assert "a story" in (checkout / "var/npm.log").read_text()
    assert lint(checkout).returncode == 0


@pytest.mark.parametrize("tool", ["eslint", "tsc"])
def test_what_a_tool_finds_is_shown_and_an_error(checkout, tool):
    has(checkout)
    answer = lint(checkout, **{tool: "line 7 is wrong"})
    assert answer.returncode == 1
    assert answer.stdout.endswith("line 7 is wrong\n")


def test_the_lock_file_names_no_registry():
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)

"""Static files: hashed names that ES modules find each other by, and plain names while nothing is collected."""

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = re.compile(r"""^\s*(?:import|export)\b[^;'"]*["'](\.[^"']+)["']""", re.MULTILINE)


@pytest.fixture
def checkout(tmp_path):
    """The site with a ``var/`` of its own, in which nothing is collected."""
    for part in ("project", "static"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tmp_path)
    for part in ("chat", "wsloop", "templates"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "static/js/aa.js").write_text('import { b } from "./lib/bb.js";\nimport "./cc.js";\n')
    (tmp_path / "static/js/lib").mkdir(exist_ok=True)
    (tmp_path / "static/js/lib/bb.js").write_text('export { c as b } from "../cc.js";\n')
    (tmp_path / "static/js/cc.js").write_text("export const c = 1;\n")
    return tmp_path


def python(checkout, *arguments):
    answer = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings", "DEMO": "1", "DJANGO_DEBUG": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_collected_modules_import_each_other_by_hashed_names(checkout):
    python(checkout, "manage.py", "collectstatic", "--noinput")
    collected = checkout / "var/static"
    names = json.loads((collected / "staticfiles.json").read_text())["paths"]
    assert re.fullmatch(r"js/aa\.[0-9a-f]{12}\.js", names["js/aa.js"])
    imported = {
        name: {posixpath.normpath(f"{posixpath.dirname(name)}/{target}") for target in IMPORT.findall(text)}
        for name in names.values()
        if name.startswith("js/") and name.endswith(".js")
        for text in [(collected / name).read_text()]
    }
    assert imported[names["js/aa.js"]] == {names["js/lib/bb.js"], names["js/cc.js"]}
    assert imported[names["js/lib/bb.js"]] == {names["js/cc.js"]}
    assert set().union(*imported.values()) <= set(names.values())  # the sample's own modules too
    assert (collected / f"{names['js/lib/bb.js']}").exists()
    fallback = posixpath.basename(names["wsloop/event-stream.js"])
    assert f'import("./{fallback}")' in (collected / names["wsloop/wsloop.js"]).read_text()


def test_names_are_plain_while_nothing_is_collected(checkout):
    code = "import django; django.setup(); from django.templatetags.static import static; print(static('js/aa.js'))"
    assert python(checkout, "-c", code) == "/static/js/aa.js\n"


COLLECT = """
import shutil
import django
django.setup()
from pathlib import Path
from project import static_files

calls = []

def call_command(*args, **options):
    calls.append(args)
    Path("var/static").mkdir(exist_ok=True)  # the rest would take seconds
    Path("var/static/staticfiles.json").touch()

def collects():
    calls.clear()
    static_files.collect()
    return calls == [("collectstatic",)]

answers = []
static_files.call_command = call_command
Path("var").mkdir(exist_ok=True)
for change in (
    lambda: None,
    lambda: Path("static/js/cc.js").write_text("export const c = 2;"),
    lambda: Path("static/js/new.js").write_text(""),
    lambda: Path("static/js/new.js").unlink(),
    lambda: shutil.rmtree("var/static"),
):
    change()
    answers += [collects(), collects()]
Path("static/js/.#cc.js").symlink_to("somebody@a-machine.1")  # as Emacs marks a file with changes
Path("static/js/cc.js~").write_text("")
answers += [collects()]
print(answers)
"""


def test_static_files_are_collected_only_if_one_has_changed(checkout):
    assert python(checkout, "-c", COLLECT) == f"{[*[True, False] * 5, False]}\n"

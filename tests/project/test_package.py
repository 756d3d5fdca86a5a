"""Sdist and wheel, built as a release is: what is in them, how an index shows them, and that the wheel works alone.

They are built from a copy of what git has. That needs git, and the tools of requirements-dev.txt, but no network; the
environment into which the wheel is installed needs the package index.
"""

import ast
import email
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest
import readme_renderer.rst

from tests.requires import missing, need

ROOT = Path(__file__).resolve().parents[2]

GENERATED = re.compile(r"PKG-INFO|setup\.cfg|wsloop\.egg-info/.*")  # of an sdist
INDEX_IS_AWAY = ("NameResolutionError", "NewConnectionError", "ConnectTimeoutError", "Failed to establish")

PUBLISH = """
import json, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only for this test",
    INSTALLED_APPS=["wsloop", *(f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions"))],
    WS4REDIS_CONNECTION={"host": "127.0.0.1", "port": 1},
)
import django
django.setup()
import redis, wsloop.publisher
try:
    wsloop.publisher.RedisPublisher(facility="news", broadcast=True).publish_message("Hello")
except redis.exceptions.ConnectionError:
    print(json.dumps([wsloop.__file__, wsloop.publisher.__file__, sys.prefix]))
"""


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, check=False, **options
    )
    if done.returncode and any(sign in done.stdout + done.stderr for sign in INDEX_IS_AWAY):
        missing("the package index cannot be reached")
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    """Paths of the files that git has."""
    need("git")
    if not (ROOT / ".git").exists():
        missing("this is no clone")
    paths = run("git", "-C", ROOT, "ls-files", "-z").split("\0")
    return {path for path in paths if path and (ROOT / path).exists()}


@pytest.fixture(scope="module")
def dist(tracked, tmp_path_factory):
    """Folder with the sdist and the wheel that was built from it."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in tracked:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source)
    return dist


@pytest.fixture(scope="module")
def wheel(dist):
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_the_sdist_is_what_git_has(dist, tracked):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name for name in names if not GENERATED.fullmatch(name)} == tracked
    assert {"CHANGELOG.rst", "LICENSE", "docs/index.rst", "tests/README.rst"} <= tracked


def test_the_wheel_has_the_package_and_nothing_else(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {path for path in tracked if path.startswith("wsloop/")}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_metadata(metadata):
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Author"] == "wsloop contributors"
    assert metadata.get_all("Provides-Extra") == ["gunicorn", "ws4redis", "uwsgi"]
    requirements = metadata.get_all("Requires-Dist")
    assert any(re.fullmatch(r'pyuwsgi\S*; extra == "uwsgi"', each) for each in requirements)
    assert any(re.match(r"websockets<\d+,", each) for each in requirements)


def test_classifiers_are_versions_of_the_matrix(metadata):
    matrix = {
        node.targets[0].id: node.value
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    pythons = ast.literal_eval(matrix["PYTHONS"])
    djangos = [ast.literal_eval(key) for key in matrix["DJANGOS"].keys]
    said = "\n".join(metadata.get_all("Classifier"))
    assert re.findall(r"^Framework :: Django :: (.+)", said, re.MULTILINE) == djangos
    versions = re.findall(r"^Programming Language :: Python :: (3\..+)", said, re.MULTILINE)
    assert versions == pythons[: len(versions)]  # of the newest ones there may be no interpreter yet
    assert metadata["Requires-Python"] == f">={pythons[0]}"


def test_an_index_shows_the_readme_and_all_its_links_lead_somewhere(metadata):
    """As ``twine check --strict`` looks at it, with the renderer that it shares with the index."""
    assert metadata["Description-Content-Type"] == "text/x-rst"
    description = metadata.get_payload()
    assert readme_renderer.rst.render(description), "the index would show it as it is written"
    settings = {"report_level": 2, "halt_level": 2, "file_insertion_enabled": False}
    document = docutils.core.publish_doctree(description, settings_overrides=settings)
    targets = [link["refuri"] for link in document.findall(docutils.nodes.reference) if "refuri" in link]
    assert targets and [target for target in targets if "://" not in target] == []
    # What was a link says where to look.
    paths = set(re.findall(r"<([\w/.-]+\.rst)>`_", (ROOT / "README.rst").read_text()))
    assert paths and [path for path in sorted(paths) if path not in document.astext()] == []


@pytest.mark.timeout(240)
def test_the_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    """With what it says that it needs, and nothing else; only Redis is missing."""
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-compile", wheel)
    run(*pip, "check")
    places = json.loads(run(venv / "bin/python", "-I", "-c", PUBLISH))
    assert all(Path(place).is_relative_to(venv) for place in places), places

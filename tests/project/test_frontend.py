"""The built files of ``frontend/`` are in the repository, and are those that Vite builds from it."""

from tests.project.test_npm_package import ROOT, run

BUILT = ROOT / "static/react"


def test_the_built_files_are_not_stale(node_modules, tmp_path):
    run(node_modules / ".bin/vite", "build", "frontend", "--outDir", tmp_path / "react", "--logLevel=warn")
    built = {path.name: path.read_bytes() for path in (tmp_path / "react").iterdir()}
    assert set(built) == {"main.js", "main.css", "licenses.md"}
    stale = "static/react is stale: run node_modules/.bin/vite build frontend"
    assert {path.name: path.read_bytes() for path in BUILT.iterdir()} == built, stale

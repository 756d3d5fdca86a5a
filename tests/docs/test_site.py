"""The site of the documentation: it is built without a warning, and its links, search and reference are whole."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

from testbed.processes import ROOT
from tests.unit.test_imports import IMPORTED_BY_SITES, MODULES

# Whose names have pages of their own: the others are what sites get from them, or from the pages about consumers, or
# are described by openapi.json.
DOCUMENTED = sorted(
    {*IMPORTED_BY_SITES, "live", "testing.plugin"} - {"runtime.core", "exposition", "http_api.views", "ops.views"}
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The directory of the site."""
    directory = tmp_path_factory.mktemp("site")
    command = ["-q", "-W", "--keep-going", "-d", directory / "doctrees", ROOT / "docs", directory / "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *map(str, command)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory / "html"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def test_every_link_leads_to_a_page_and_a_place_on_it(built):
    pages = {path: Page(path.read_text()) for path in built.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, fragment = urldefrag(unquote(link))
            there = (path.parent / target.partition("?")[0]).resolve() if target else path
            if not there.exists() or (fragment and there in pages and fragment not in pages[there].ids | {"top"}):
                wrong.append(f"{path.relative_to(built)}: {link}")
    assert not wrong, "\n".join(sorted(wrong)[:20])


def test_every_page_of_the_documentation_is_in_it_and_in_its_search(built):
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.rst")]
    index = (built / "searchindex.js").read_text()
    first = Page((built / "index.html").read_text()).links
    for page in pages:
        assert f'"{page}"' in index
        assert str(page).startswith(("index", "reference/python/")) or f"{page}.html" in first, f"{page} is in no list"


def test_the_reference_has_every_public_name(built):
    text = "".join(path.read_text() for path in (built / "reference/python").glob("*.html"))
    described = {name.rpartition(".")[2] for name in re.findall(r'<dt [^>]*id="(wsloop\.[\w.]+)"', text)}
    for name in DOCUMENTED:
        assert f"module-wsloop.{name}" in text
        tree = MODULES[name]
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
                public = {each for each in ast.literal_eval(statement.value) if not each.isupper()}
                assert public <= described, f"{name}: {public - described}"

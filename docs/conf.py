"""The site of the documentation: ``make docs`` builds it, and any warning is an error.

The pages are plain reStructuredText whose links are paths, so that they can be read in a checkout, too. Two things are
made of that here: links between pages, and from the list on the first page the table of contents. Only the pages below
``reference/python/`` need Sphinx, which takes their text from docstrings.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import docutils.nodes
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import wsloop  # noqa: E402 - from the checkout

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docs_settings")
sys.modules["docs_settings"] = type(sys)("docs_settings")  # modules that need settings are imported with these
sys.modules["docs_settings"].__dict__.update(
    SECRET_KEY="only for the documentation",
    USE_TZ=True,
    INSTALLED_APPS=[
        "wsloop",
        "wsloop.outbox",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
)

import django  # noqa: E402

django.setup()

logger = logging.getLogger(__name__)

project = "wsloop"
author = "wsloop contributors"
copyright = f"2026, {author}"
version = release = wsloop.__version__
language = "en"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "wsloop"

html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ["misc.highlighting_failure"]  # TypeScript with the elements of React, which no lexer here knows

LISTED = re.compile(r"^(?:-|\d\.) `(?P<title>[^<`]+?)\s*<(?P<page>[\w/-]+)\.rst>`_", re.MULTILINE)
SECTION = re.compile(r"^([^\n]+)\n-{3,}\n", re.MULTILINE)


def contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the table of contents that each list of pages is: on the first page, and on that of the tutorial."""
    if Path(docname).name != "index":
        return
    top, *sections = SECTION.split(source[0])
    text = [top, toctree(top)]
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        text += [f"{name}\n{'-' * len(name)}\n", body, toctree(body, name)]
    source[0] = "".join(text)


def toctree(text: str, caption: str = "") -> str:
    pages = [f"   {each['title']} <{each['page']}>" for each in LISTED.finditer(text)]
    options = ["   :hidden:", *([f"   :caption: {caption}"] if caption else [])]
    return "\n".join(["", ".. toctree::", *options, "", *pages, "", ""]) if pages else ""


def links(app: Sphinx, doctree: docutils.nodes.document, docname: str) -> None:
    """Let links to files of the checkout lead to their pages; other files are copied beside the pages."""
    page = DOCS / f"{docname}.rst"
    for reference in doctree.findall(docutils.nodes.reference):
        path, _, fragment = reference.get("refuri", "").partition("#")
        target = Path(os.path.normpath(page.parent / path))
        if not path or ":" in path or reference.get("internal"):
            continue
        if not target.is_file():
            logger.warning("no such file: %s", path, location=reference)
            continue
        anchor = f"#{fragment}" if fragment else ""
        inside = str(target.relative_to(DOCS).with_suffix("")) if target.is_relative_to(DOCS) else ""
        if inside in app.env.all_docs:
            reference["refuri"] = app.builder.get_relative_uri(docname, inside) + anchor
        elif target.is_relative_to(ROOT) and app.builder.format == "html":
            copy = f"files/{target.relative_to(ROOT)}.txt"
            (Path(app.outdir) / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, Path(app.outdir) / copy)
            depth = app.builder.get_target_uri(docname).count("/")
            reference["refuri"] = "../" * depth + copy


def setup(app: Sphinx) -> None:
    app.connect("source-read", contents)
    app.connect("doctree-resolved", links)

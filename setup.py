"""The README without its relative links, which lead nowhere on a package index; everything else is in pyproject.toml.

What was a link is text, followed by the path, which leads somewhere in the sdist.
"""

import re
from pathlib import Path

from setuptools import setup

LINK = re.compile(r"`([^`<>]+?)\s+<([\w/.-]+)>`_")  # a target with a scheme has a colon, and stays

text = Path(__file__).with_name("README.rst").read_text(encoding="utf-8")
readme = LINK.sub(lambda link: link[1] if link[1] == link[2] else f"{link[1]} ({link[2]})", text)
setup(long_description=readme, long_description_content_type="text/x-rst")

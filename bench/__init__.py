"""The measurements of ``make bench``: what the engine costs and how fast it is, beside peers on the same machine."""

import os

# Each worker would compile the site anew, and take three seconds of a core to load instead of one.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

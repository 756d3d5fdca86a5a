"""Collects the static files when one of them has changed: to look takes a hundredth of the time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

from project import storage


def collect() -> None:
    """Run ``collectstatic``, unless it has nothing to do since this was called last.

    Raises:
        CommandError, ImproperlyConfigured, OSError: what ``collectstatic`` raises.
    """
    root = Path(settings.STATIC_ROOT)
    stamp = root.with_name(f"{root.name}.stamp")
    wanted = hashlib.sha256("\n".join(_sources()).encode()).hexdigest()
    if (root / "staticfiles.json").exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)  # an interrupted run has not collected everything
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(wanted)


def _sources() -> Iterator[str]:
    """Return a line for everything that the collected files depend on."""
    yield f"Django {django.__version__}, WhiteNoise {importlib.metadata.version('whitenoise')}"
    yield _state(storage.__file__)
    config: Any = apps.get_app_config("staticfiles")
    for finder in get_finders():
        # As collectstatic does: editors leave links to nothing beside a file that is being changed.
        for path, source in finder.list(config.ignore_patterns):
            prefix = getattr(source, "prefix", None) or ""
            yield f"{prefix}/{path} {_state(source.path(path))}"


def _state(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_mtime_ns} {found.st_size}"

"""What sites start from: their environment, a database with the demo accounts, and the static files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testbed.processes import ROOT

SETTINGS = "testbed.sample.settings"


def site_environment(directory: Path, site_files: Path, redis_url: str, settings_module: str) -> dict[str, str]:
    """Return the environment of a site: nothing of the caller's that could change it; it writes to ``directory``."""
    theirs = ("DJANGO_", "REDIS_", "DATABASE_", "DEMO", "UWSGI_", "SITE_", "HTTP")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | {
        "DJANGO_SETTINGS_MODULE": settings_module,
        "DJANGO_SECRET_KEY": "only-for-a-site-of-the-testbed-" + "x" * 32,
        "DEMO": "1",
        "DATABASE_URL": f"sqlite:///{directory}/db.sqlite3",
        "REDIS_URL": redis_url,
        "SITE_VAR": str(directory),
        "SITE_STATIC": str(site_files / "static"),
        "PYTHONUNBUFFERED": "1",
    }


def make_site_files(directory: Path, settings_module: str = SETTINGS) -> Path:
    """Write to ``directory`` what sites start from: a database with the demo accounts, and the static files."""
    env = site_environment(directory, directory, "redis://127.0.0.1:1/0", settings_module)
    for command in (["migrate", "-v0"], ["demo_data"], ["collectstatic", "-v0", "--no-input"]):
        # Without what it says of accounts that it has made; errors go on being seen.
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=env,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )
    return directory

#!/usr/bin/env python
"""Django's command line."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from project import startup

    try:
        startup.check_command(sys.argv)
        execute_from_command_line(sys.argv)
    except (startup.RefusedError, ImproperlyConfigured) as exc:
        sys.exit(str(exc))

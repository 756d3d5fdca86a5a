"""Make users, each with a session of their own, and print the session keys: ``python -m bench.accounts COUNT``.

A program of its own, because it needs Django and the settings of the measured site.
"""

import os
import sys
from datetime import timedelta

import django
from django.core.management import call_command


def make(count):
    """Create ``count`` signed-in users of the group ``chatters`` and return their session keys."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import Group, User
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    group, _ = Group.objects.get_or_create(name="chatters")
    users = User.objects.bulk_create(
        [User(username=f"user{number:05}", password=f"!{number}") for number in range(count)], batch_size=500
    )
    membership = User.groups.through
    membership.objects.bulk_create([membership(user=user, group=group) for user in users], batch_size=500)
    store = SessionStore()
    expires = timezone.now() + timedelta(days=1)
    sessions = []
    for user in users:
        # What django.contrib.auth.login() and the signal handler of ws4redis put into a session.
        data = {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
            HASH_SESSION_KEY: user.get_session_auth_hash(),
            "ws4redis:memberof": [group.name],
        }
        key = store._get_new_session_key()  # type: ignore[attr-defined] # as its save() does
        sessions.append(Session(session_key=key, session_data=store.encode(data), expire_date=expires))
    Session.objects.bulk_create(sessions, batch_size=500)
    return [session.session_key for session in sessions]


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    print("\n".join(make(int(sys.argv[1]))))

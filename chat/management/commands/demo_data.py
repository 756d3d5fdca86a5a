"""``manage.py demo_data``: creates the demonstration accounts, a chat room and some tasks."""

from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from chat import demo
from chat.models import Message, ReadMark, Room, Task


class Command(BaseCommand):
    help = (
        "Creates the demonstration accounts: john and mary (password secret, group chatters), admin (password admin, "
        "staff). Running it again changes nothing: an existing account keeps its password and its permissions; only a "
        "missing account or a missing membership of the group is added. It also creates the chat room lobby, in which "
        "john and mary talk, if it does not exist, and two tasks, if there are none."
    )

    @transaction.atomic
    def handle(self, *args, **options):
        if not (settings.DEMO or settings.DEBUG):
            raise CommandError(
                "demo_data creates accounts with well-known passwords. To allow it, set DEMO=1 or "
                "DJANGO_DEBUG=1 in the environment; never do so on a public site."
            )
        for account in demo.ACCOUNTS:
            user, created = self._ensure(account)
            for name in account.groups:
                Group.objects.get_or_create(name=name)[0].user_set.add(user)
            if options["verbosity"] > 0:
                state = "created" if created else "exists, unchanged"
                self.stdout.write(f"{account.username}: {state}")
        self._ensure_room()
        self._ensure_tasks()

    def _ensure(self, account):
        users = get_user_model()._default_manager
        user = users.filter(username=account.username).first()
        if user:
            # Not reset: somebody changed the password of the account on purpose, or had the name before.
            return user, False
        create = users.create_superuser if account.staff else users.create_user
        return create(username=account.username, password=account.password), True

    def _ensure_room(self):
        room, created = Room.objects.get_or_create(slug=demo.ROOM, defaults={"last_number": len(demo.SAID)})
        if not created:
            return
        authors = self._authors(name for name, _ in demo.SAID)
        began = timezone.now() - timedelta(minutes=len(demo.SAID))
        Message.objects.bulk_create(
            Message(
                room=room, number=number, author=authors[name], text=text, sent_at=began + timedelta(minutes=number)
            )
            for number, (name, text) in enumerate(demo.SAID, 1)
        )
        ReadMark.objects.bulk_create(
            ReadMark(user=author, room=room, number=room.last_number) for author in authors.values()
        )

    def _ensure_tasks(self):
        if Task.objects.exists():
            return
        authors = self._authors(name for name, _, _ in demo.TASKS)
        # Together, which sends no signals: Redis need not run yet, and no page is open.
        Task.objects.bulk_create(Task(author=authors[name], text=text, done=done) for name, text, done in demo.TASKS)

    @staticmethod
    def _authors(names):
        return get_user_model()._default_manager.in_bulk(list(names), field_name="username")

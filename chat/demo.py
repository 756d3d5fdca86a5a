"""The demonstration accounts: ``manage.py demo_data`` makes them, the pages show them when ``DEMO`` is on."""

from dataclasses import dataclass

GROUP = "chatters"


@dataclass(frozen=True)
class Account:
    username: str
    password: str
    staff: bool = False

    @property
    def groups(self):
        return () if self.staff else (GROUP,)


ACCOUNTS = (Account("john", "secret"), Account("mary", "secret"), Account("admin", "admin", staff=True))

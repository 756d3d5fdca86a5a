"""The demonstration accounts: ``manage.py demo_data`` makes them, the pages show them when ``DEMO`` is on.

And a chat room, so that the list of rooms is not empty.
"""

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

ROOM = "lobby"
SAID = (  # by whom, in the room above
    ("john", "Hello! Is anybody here?"),
    ("mary", "I am. Open this room in a second browser, and watch what I write come in."),
    ("john", "What if I lose the connection?"),
    ("mary", "Then you get exactly what you have missed when you are back."),
)

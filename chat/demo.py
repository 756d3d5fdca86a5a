"""The demonstration accounts, which ``manage.py demo_data`` creates and the pages show when ``DEMO`` is on.

Also a chat room and tasks, so that these lists are not empty.
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

VISITOR = ACCOUNTS[0]  # as which a visitor of the start page signs in with one click

TASKS = (("john", "Read the tutorial", True), ("mary", "Open this page in a second browser", False))

ROOM = "lobby"
SAID = (  # author and text of the messages in that room
    ("john", "Hello! Is anybody here?"),
    ("mary", "I am. Open this room in a second browser, and watch my messages arrive."),
    ("john", "What if I lose the connection?"),
    ("mary", "Then you get exactly the messages that you missed when you are back."),
)

"""The pages that the navigation and the start page name: three groups, each with a sentence that explains it.

Responsible for the words and the order. ``chat.urls`` has the addresses; a page without one there is left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """A link.

    Attributes:
        name: of the URL.
        label: one word, the name of the page.
        about: what happens there, in a few words that follow the label.
        below: names of the URLs below it, for which the link is marked too.
        staff_only: whether only staff may open it.
    """

    name: str
    label: str
    about: str
    below: tuple[str, ...] = ()
    staff_only: bool = False


@dataclass(frozen=True)
class Group:
    heading: str
    about: str
    pages: tuple[Page, ...]

    @property
    def names(self) -> set[str]:
        """The names of all URLs of the group."""
        return {name for page in self.pages for name in (page.name, *page.below)}


GROUPS = (
    Group(
        "Notifications",
        "A view publishes, and open pages show the message. No code runs on the socket.",
        (
            Page("form", "Form", "a form's answer comes over the socket"),
            Page("broadcast", "Broadcast", "to everybody, signed in or not"),
            Page("user", "User", "to one person, in every window"),
            Page("group", "Group", "to all members of a group"),
            Page("session", "Session", "to one browser, without an account"),
            Page("tasks", "Tasks", "a list that is live, made of templates"),
            Page("react", "React", "notices and who is here, made with React"),
        ),
    ),
    Group(
        "Chat",
        "Your code runs for each socket, as a consumer: it answers, streams and talks.",
        (
            Page("rooms", "Rooms", "chat with everybody in the same room", below=("room",)),
            Page("echo", "Echo", "what you send comes back"),
            Page("random", "Random", "a loop on the server sends numbers"),
        ),
    ),
    Group(
        "Tools",
        "Send to any audience, and watch what arrives.",
        (
            Page("send", "Send", "choose audience, recipient and text"),
            Page("inbox", "Inbox", "watch everything that reaches you"),
            Page("inspector", "Inspector", "open any socket and see each frame", staff_only=True),
            Page("wsloop-ops:page", "Operations", "sockets, throughput and users, live", staff_only=True),
            Page("admin:index", "Admin", "Django's own, for users and groups", staff_only=True),
        ),
    ),
)

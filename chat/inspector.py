"""``/inspector/``: a console for developers, which opens a socket of the site and shows everything that happens on it.

Responsible for access to the page, and for its suggestions. It grants no permissions: the policy decides what the
sockets of the page may do, as for any other client.
"""

from django.conf import settings
from django.contrib.auth.mixins import UserPassesTestMixin
from django.views.generic import TemplateView

from wsloop import conf

# Suggestions of the page; the user may type any other path.
FACILITIES = {
    "home": "the start page's messages to itself, as JSON",
    "form": "a form's answer to its user",
    "news": "Broadcast, User, Group and Session",
    "inbox": "messages as JSON",
    "user": "open to publish for signed-in users",
    "session": "open to publish for signed-in users",
}
CONSUMERS = {
    "echo/": "returns each message",
    "random/": "random numbers, until you leave",
    "rooms/lobby/": "a chat room",
}

AUDIENCES = ("broadcast", "user", "group", "session")
PARAMETERS = {  # of a socket's URL, with their labels
    "Subscribe to": {f"subscribe-{name}": name for name in (*AUDIENCES, "presence")},
    "Publish to": {f"publish-{name}": name for name in AUDIENCES},
    "Own messages": {"echo": "echo"},
}


class Inspector(UserPassesTestMixin, TemplateView):
    """For staff, and with ``DEBUG``, on a developer's machine, for everybody."""

    template_name = "chat/inspector.html"
    extra_context = {"facilities": FACILITIES, "consumers": CONSUMERS, "parameters": PARAMETERS}

    def test_func(self):
        return settings.DEBUG or self.request.user.is_staff

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            websocket_url=conf.websocket_url(),
            heartbeat=(conf.heartbeat() or b"").decode(),
            max_message_size=conf.option("MAX_MESSAGE_SIZE"),
            **kwargs,
        )

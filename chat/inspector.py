"""``/inspector/``: a console for developers, with which to open a socket of the site and watch all that happens on it.

Responsible for who may see the page and for what it offers. It grants nothing: what the sockets of the page may do is
decided by the policy, as for any other client.
"""

from django.conf import settings
from django.contrib.auth.mixins import UserPassesTestMixin
from django.views.generic import TemplateView

from wsloop import conf

# What the page suggests; any other path can be typed.
FACILITIES = {
    "form": "a form's answer to its user",
    "news": "Broadcast, User, Group and Session",
    "inbox": "messages as JSON",
    "user": "open to publish for signed-in users",
    "session": "open to publish for signed-in users",
}
CONSUMERS = {
    "echo/": "returns what it gets",
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
    """For staff, and for everybody where ``DEBUG`` says that the site is on a developer's machine."""

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

"""A plugin of pytest: what the tests of Channels import from Channels is wsloop's, where wsloop has the name.

Names that wsloop does not have are those of Channels: a module of its tests imports some of both. It is loaded before
any test, and by its name alone.
"""

import importlib
import sys
import types

MODULES = {
    "channels.consumer": "wsloop.consumers",
    "channels.db": "wsloop.db",
    "channels.exceptions": "wsloop.exceptions",
    "channels.generic.websocket": "wsloop.consumers",
    "channels.layers": "wsloop.layers",
    "channels.routing": "wsloop.routing",
    "channels.testing": "wsloop.testing",
}
# Import what is redirected, so they must have done so before.
UNCHANGED = ("channels.auth", "channels.generic.http", "channels.security.websocket", "channels.sessions")


class Redirected(types.ModuleType):
    """A module that has the public names of ``own``, and the others of ``peer``."""

    def __init__(self, name, own, peer):
        super().__init__(name)
        self._own, self._peer = own, peer

    def __getattr__(self, name):
        if name in self._own.__all__:
            return getattr(self._own, name)
        return getattr(self._peer, name)


def redirect():
    """Replace the modules of Channels."""
    for name in UNCHANGED:
        importlib.import_module(name)
    for name, own in MODULES.items():
        peer = importlib.import_module(name)
        redirected = Redirected(name, importlib.import_module(own), peer)
        parent, _, attribute = name.rpartition(".")
        setattr(sys.modules[parent], attribute, redirected)
        sys.modules[name] = redirected


def show_insides():
    """Let tests look at ``channels`` and ``groups`` of a layer, as they do with that of Channels in memory."""
    from wsloop.layers import ChannelLayer
    from wsloop.testing.memory import Memory

    def inside(name):
        def look(layer):
            found = getattr(layer.remote, name) if isinstance(layer.remote, Memory) else {}
            return {key: value for key, value in found.items() if value}  # an empty group is none

        return property(look)

    ChannelLayer.channels, ChannelLayer.groups = inside("_consumers"), inside("_groups")


def pytest_configure():
    """Make the site of the tests one of wsloop's; its ``conftest.py`` has named the settings by now."""
    from django.conf import settings

    settings.INSTALLED_APPS = [
        {"channels": "wsloop"}.get(name, name) for name in settings.INSTALLED_APPS if name != "daphne"
    ]
    del settings.CHANNEL_LAYERS


def pytest_sessionstart():
    """Redirect when Django is set up and no test has been imported."""
    redirect()
    show_insides()

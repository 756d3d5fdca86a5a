"""The sample site as it is measured: its settings, but for the heartbeat, which can be switched off."""

import os
from pathlib import Path

from project.settings import *  # noqa: F403
from project.settings import WSLOOP

VAR_DIR = Path(os.environ["BENCH_DIR"])
# No file of the site is asked for, and looking for them would say that there is no directory.
MIDDLEWARE = [each for each in MIDDLEWARE if not each.startswith("whitenoise")]  # noqa: F405

WSLOOP = {
    **{name: WSLOOP[name] for name in ("REDIS", "PREFIX", "POLICY")},
    "HEARTBEAT": os.environ.get("BENCH_HEARTBEAT") or None,
    "TRUSTED_PROXIES": ["127.0.0.1"],  # attackers say from which address they come
}
if os.environ.get("BENCH_UNLIMITED"):  # an echo at full rate sends more than a client may
    WSLOOP["RATE_LIMIT"] = None
if os.environ.get("BENCH_PAGES"):
    WSLOOP["FACILITIES"] = {"page-*": {"size": 100}}  # with a history
if os.environ.get("BENCH_QUIET"):
    # On a busy machine, too, what is measured is time, and nobody is given up.
    for _name in ("REDIS_TIMEOUT", "HANDSHAKE_TIMEOUT", "HANDLER_TIMEOUT"):
        WSLOOP[_name] = 600
    # Few pings come between the bytes that are compared, and they are answered when these have been.
    WSLOOP["PING_INTERVAL"] = WSLOOP["PING_TIMEOUT"] = 3600
if os.environ.get("BENCH_EVENTS"):  # neighbours publish to a facility, and need no session for it
    WSLOOP["POLICY"] = lambda request, channels: channels
    WSLOOP["FACILITIES"] = {"kept*": {"size": 200}}
    WSLOOP["PING_INTERVAL"] = WSLOOP["PING_TIMEOUT"] = 3600  # clients whose bytes are compared do not answer meanwhile

if os.environ.get("BENCH_STORM"):
    WSLOOP["FACILITIES"] = {"storm": {"size": 1000, "ttl": 600}}

# Of the peers that are Django Channels. channels_redis waits for messages for 5 s at a time, and redis-py 8 by default
# no longer for an answer, so that the consumers of a quiet server would end with a TimeoutError.
_redis_host = {"address": os.environ["REDIS_URL"], "socket_timeout": None}
CHANNEL_LAYERS = {
    alias: {"BACKEND": f"channels_redis.{layer}", "CONFIG": {"hosts": [_redis_host]}}
    for alias, layer in (("default", "pubsub.RedisPubSubChannelLayer"), ("core", "core.RedisChannelLayer"))
}

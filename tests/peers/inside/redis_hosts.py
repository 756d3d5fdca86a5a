"""A plugin of pytest: tests of channels_redis use the Redis and the Sentinels of this run."""

import json
import os

from channels_redis import core, pubsub, utils
from django.conf import settings


def replaced(hosts):
    """Return the hosts of a layer in a test, with the addresses of this run."""
    if isinstance(hosts, list):
        return [replaced(host) for host in hosts]
    if isinstance(hosts, dict):
        return {**{key: hosts[key] for key in ("db",) if key in hosts}, **json.loads(os.environ["PEER_SENTINEL"])}
    return hosts.replace("redis://localhost:6379", os.environ["PEER_REDIS"])


def decode_hosts(hosts):
    return utils.decode_hosts(hosts or [os.environ["PEER_REDIS"]])


def pytest_configure():
    settings.configure()  # the tests have no site, and the event loop of a worker reads WSLOOP
    core.decode_hosts = pubsub.decode_hosts = decode_hosts  # some tests make a layer without hosts


def pytest_collection_modifyitems(items):
    for module in {item.module for item in items}:
        for name in {"TEST_HOSTS", "MULTIPLE_TEST_HOSTS"} & vars(module).keys():
            setattr(module, name, replaced(getattr(module, name)))

"""The commands for operators, with the workers of a real server, and nginx in front of it."""

import json

import pytest

from testbed.nginx import start_nginx
from testbed.processes import free_port, wait_until
from tests.requires import need

# The section that ws4redis documents for its WebSockets: it sets no Host.
WS4REDIS = """
proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
proxy_pass http://{host};
"""


def test_messages_reach_and_kicks_end_the_sockets_of_all_workers(site, facility):
    clients = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(12)]
    other = site.connect(f"{facility}-2?subscribe-broadcast")
    published = json.loads(site.manage("wspublish", facility, "the room closes", "--broadcast", "--json"))
    assert published == {"listeners": 12, "bytes": 15, "repeated": False}
    assert [client.next() for client in clients] == ["the room closes"] * 12
    kick = ("wskick", "--facility", facility, "--reason", "closed", "--yes", "--json")
    assert json.loads(site.manage(*kick)) == {"sockets": 12}
    assert [client.closing() for client in clients] == [4500] * 12
    site.publish(f"{facility}-2", "still here", broadcast=True)
    assert other.next() == "still here"


@pytest.fixture
def without_host(site, tmp_path):
    """The host of an nginx before the site, with the section that ws4redis documents."""
    need("nginx")
    port = free_port()
    nginx = start_nginx(tmp_path, port, WS4REDIS.format(host=site.host))
    try:
        wait_until(lambda: nginx.listens(port), what="nginx listening")
        yield f"127.0.0.1:{port}"
    finally:
        nginx.stop()


def test_the_doctor_finds_the_section_that_ws4redis_documents(site, facility, without_host):
    site.connect(f"{facility}?subscribe-broadcast")  # a worker listens to Redis with its first socket
    url = f"ws://{without_host}/ws/{facility}?subscribe-broadcast"
    found = json.loads(site.manage("wsdoctor", "--url", url, "--hold", "0", "--json", code=1))
    assert found["ok"] is False
    (host,) = [each for each in found["findings"] if each["about"] == "Host"]
    assert host["level"] == "wrong"
    assert "`proxy_set_header Host $http_host;`" in host["advice"]
    (workers,) = [each for each in found["findings"] if each["about"] == "Workers"]
    assert workers["level"] == "ok"

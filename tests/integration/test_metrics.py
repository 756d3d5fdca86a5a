"""The metrics of all workers, as a Prometheus server reads them, over the life and death of workers."""

import os
import re
import signal

from testbed.processes import wait_until

TOKEN = "a-token-of-the-test-site"


def numbers(site, name, **labels):
    """The samples of a metric by worker, with these labels."""
    answer = site.request("GET", "/metrics/", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200, answer.text
    found = {}
    for line in re.findall(rf"^{name}{{(.*)}} (\S+)$", answer.text, re.MULTILINE):
        given = dict(re.findall(r'(\w+)="([^"]*)"', line[0]))
        if labels.items() <= given.items():
            found[given["worker"]] = found.get(given["worker"], 0) + float(line[1])
    return found


def test_workers_are_counted_while_they_live(serve, private_redis, facility):
    """Each has series of its own; after a worker that was killed its successor begins anew, and nothing is left."""
    options = {"FACILITIES": {"test-*": {"size": 10}}, "METRICS_TOKEN": TOKEN, "MAX_FACILITY_SIZE": 40}
    site = serve(redis=private_redis, front="http", processes=2, settings={"WSLOOP": options})
    assert site.request("GET", "/metrics/").status == 404
    assert site.request("GET", "/metrics/", cookies=site.login("john")).status == 404
    assert "wsloop_workers 0.0" in site.request("GET", "/metrics/", cookies=site.login("admin")).text
    clients = {}
    for pid in site.workers():
        with site.only(pid):
            clients[pid] = [site.connect(f"{facility}?subscribe-broadcast") for _ in range(3)]
            assert site.request("GET", f"/ws/{'x' * 50}").status in (414, 426)
    site.publish(facility, *map(str, range(5)), broadcast=True)
    for each in clients.values():
        for client in each:
            assert [client.next() for _ in range(5)] == [*map(str, range(5))]
    place = {"facility": "test-*", "dialect": "ws4redis", "audience": "broadcast"}
    assert numbers(site, "wsloop_sockets", **place) == {"1": 3, "2": 3}
    assert numbers(site, "wsloop_messages_out_total") == {"1": 15, "2": 15}
    assert numbers(site, "wsloop_delivery_seconds_count") == {"1": 5, "2": 5}
    assert numbers(site, "wsloop_handshake_seconds_count", outcome="opened") == {"1": 3, "2": 3}
    assert numbers(site, "wsloop_redis_up") == {"1": 1, "2": 1}

    victim = site.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in site.workers() and len(site.workers()) == 2, what="its successor")
    left = numbers(site, "wsloop_messages_out_total")
    assert list(left.values()) == [15]  # the successor has no socket yet
    (other,) = left
    (new,) = set(site.workers()) - set(clients)
    with site.only(new):
        site.connect(f"{facility}?subscribe-broadcast")
    after = numbers(site, "wsloop_handshake_seconds_count", outcome="opened")
    assert (set(after), after[other]) == ({"1", "2"}, 3)
    assert after[({"1", "2"} - {other}).pop()] == 1

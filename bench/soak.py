"""``python -m bench.soak``: everything breaks at random for ten minutes, and in the end nothing may be missing.

Two sites on one Redis, of two workers and of one, serve clients of wsloop.v1, half of them over a network that fails.
A publisher sends numbered messages steadily while Redis is killed (with its data on the disk), stopped and cut off,
workers are killed and reloaded, servers stopped and started, and lines stall and break: which, when and for how long
comes from a seed. The table at the end adds up what every client got. Exit status 1: messages came twice, or are
missing and nobody was told.

SOAK_SECONDS (600) and SOAK_SEED (from the clock; it is printed) come from the environment. Progress goes to standard
error, the table to standard output.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from testbed.cutting_proxy import CuttingProxy
from testbed.processes import wait_until
from testbed.publisher import Publisher
from testbed.redis_servers import RedisServer
from testbed.site_files import make_site_files
from testbed.sites import Sites
from testbed.swarm import Swarm

FACILITY = "soak"
CLIENTS = 100  # of each site, half of them through a proxy
RATE = 30  # messages a second
REPORT = 5.0  # seconds between two lines of progress
SETTLING = 60.0  # seconds that clients have in the end to come back and to get what there is
SETTINGS = {
    "WSLOOP": {
        "FACILITIES": {FACILITY: {"size": 20_000, "ttl": 3600}},
        "MAX_CONNECTIONS_PER_ADDRESS": None,
        "MAX_CONNECTIONS_PER_USER": None,
        "PING_INTERVAL": 5,
        "PING_TIMEOUT": 5,
    }
}


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


class Harm:
    """What can be done to the servers and the lines between them. Each method ends with everything running again.

    Args:
        dice: chooses.
        redis: the Redis of the sites.
        sites: pairs of a site and the file whose change reloads it.
        to_redis: the proxy between the sites and Redis.
        to_clients: the proxies between clients and sites.
        pause: waits for so many seconds, and tells of progress.
    """

    def __init__(self, dice, redis, sites, to_redis, to_clients, pause):
        self._dice, self._redis, self._sites = dice, redis, sites
        self._to_redis, self._to_clients, self._pause = to_redis, to_clients, pause
        # What costs the most is the rarest.
        self.kinds = [
            *(self.kill_redis, self.stop_redis, self.cut_redis, self.cut_redis, self.kill_subscriptions),
            *(self.kill_worker, self.kill_worker, self.reload, self.reload, self.reload_at_once, self.restart),
            *(self.drop_the_network, self.drop_the_network, self.drop_the_network, self.cut_lines, self.cut_lines),
        ]

    def _site(self):
        return self._dice.choice(self._sites)

    def kill_redis(self):
        self._redis.kill()
        self._pause(self._dice.uniform(0, 3))
        self._redis.start()

    def stop_redis(self):
        self._redis.pause()
        self._pause(self._dice.uniform(0.5, 8))
        self._redis.resume()

    def cut_redis(self):
        """In the middle of a message, as likely as not."""
        for _ in range(self._dice.randrange(1, 5)):
            self._to_redis.cut_after(self._dice.randrange(1, 5000))
            self._pause(self._dice.uniform(0.1, 1))

    def kill_subscriptions(self):
        with self._redis.client() as client:
            for kind in ("pubsub", "normal"):
                client.client_kill_filter(_type=kind, skipme=True)

    def kill_worker(self):
        site, _ = self._site()
        old = site.workers()
        victim = self._dice.choice(old)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(site.workers()) == len(old) and victim not in site.workers(), 60, "another worker")

    def reload(self):
        """One worker after the other."""
        site, file = self._site()
        old = site.workers()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            # A master that has just begun takes the file as it is. It looks at whole seconds.
            later = file.stat().st_mtime + 2
            os.utime(file, (later, later))
            with contextlib.suppress(AssertionError):
                wait_until(lambda: self._replaced(site, old), 15, "the reloaded workers")
                return
        raise AssertionError(f"the workers of {site} were not reloaded")

    def reload_at_once(self):
        site, _ = self._site()
        old = site.workers()
        site.send_signal(signal.SIGHUP)
        wait_until(lambda: self._replaced(site, old), 60, "the reloaded workers")

    @staticmethod
    def _replaced(site, old):
        try:
            new = site.workers()
        except OSError:  # the master loads itself again
            return False
        return len(new) == len(old) and not set(new) & set(old)

    def restart(self):
        site, _ = self._site()
        site.send_signal(self._dice.choice([signal.SIGTERM, signal.SIGINT]))
        site.wait(60)
        self._pause(self._dice.uniform(0, 2))
        site.start()

    def drop_the_network(self):
        proxy = self._dice.choice(self._to_clients)
        proxy.stall()
        self._pause(2)
        share = self._dice.random()
        proxy.cut(lambda _: self._dice.random() < share)
        proxy.go()

    def cut_lines(self):
        share = self._dice.random()
        self._dice.choice(self._to_clients).cut(lambda _: self._dice.random() < share)


class Progress:
    """Waits, and says every few seconds how things are."""

    def __init__(self, swarm, publisher):
        self._swarm, self._publisher = swarm, publisher
        self._began = self._told = time.monotonic()
        self.doing = "nothing yet"

    def pause(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.tell()
            time.sleep(min(left, 0.2))

    def tell(self):
        now = time.monotonic()
        if now - self._told < REPORT:
            return
        self._told = now
        clients = self._swarm.clients
        counts = {
            "open": sum(client.open for client in clients),
            "published": sum(self._publisher.published.values()),
            "delivered": sum(client.ledger.delivered for client in clients),
            "recovered": sum(client.recovered for client in clients),
            "told of a loss": sum(client.ledger.told for client in clients),
        }
        say(
            f"{now - self._began:4.0f} s, {self.doing}: "
            + ", ".join(f"{value} {name}" for name, value in counts.items())
        )


def soak(seconds, dice, clients=CLIENTS, least=0):
    """Run for so many seconds, and until ``least`` things have been done, and return the verdict and what was done.

    Returns:
        the ``Verdict``, the number of published messages, and pairs of what was done and how often.
    """
    done: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        files = directory / "files"
        files.mkdir()
        redis = stack.enter_context(RedisServer(durable=True))
        to_redis = stack.enter_context(CuttingProxy(redis.port))
        serve = stack.enter_context(Sites(redis, make_site_files(files)))
        sites = []
        for number, processes in enumerate((2, 1)):
            touched = directory / f"reload-{number}"
            touched.touch()
            options = ["--lazy-apps", "--worker-reload-mercy", 10, "--touch-chain-reload", touched, "--disable-logging"]
            env = {"REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0"}
            site = serve(front="http-socket", processes=processes, options=options, settings=SETTINGS, env=env)
            sites.append((site, touched))
        to_clients = [stack.enter_context(CuttingProxy(site.port)) for site, _ in sites]
        publishers: list[Publisher] = []
        swarm = stack.enter_context(Swarm(high=lambda: publishers[0].high() if publishers else {}))
        for (site, _), proxy in zip(sites, to_clients, strict=True):
            for port in (site.port, proxy.port):
                url = f"ws://127.0.0.1:{port}/ws/{FACILITY}?subscribe-broadcast"
                signed_in = clients // 10
                swarm.add(clients // 2 - signed_in, url, ("b", "m"))
                swarm.add(signed_in, f"{url}&subscribe-user", ("b", "u", "m"), cookies=site.login("john"))
        streams: dict[str, dict[str, object]] = {
            "b": {"facility": FACILITY, "broadcast": True},
            "u": {"facility": FACILITY, "users": ["john"]},
            "m": {"facility": FACILITY, "broadcast": True, "users": ["john"]},
        }
        publisher = stack.enter_context(Publisher(sites[0][0], streams, RATE, env={"REDIS_URL": redis.url}))
        publishers.append(publisher)
        progress = Progress(swarm, publisher)
        harm = Harm(dice, redis, sites, to_redis, to_clients, progress.pause)
        publisher.wait(3)
        until = time.monotonic() + seconds
        while time.monotonic() < until or sum(done.values()) < least:
            act = dice.choice(harm.kinds)
            progress.doing = act.__name__.replace("_", " ")
            done[progress.doing] = done.get(progress.doing, 0) + 1
            act()
            progress.pause(dice.uniform(0, 4))  # so that now one thing, now several are still under way
        progress.doing = "settling"
        swarm.wait_open(SETTLING)
        publisher.wait(3)
        swarm.wait_for(publisher.high(), SETTLING)  # while more comes, for those who were told of a loss
        published = dict(publisher.stop())
        swarm.wait_for(published, SETTLING)
        return swarm.verdict(published), sum(published.values()), sorted(done.items())


def table(verdict, published, done):
    """Return the result in lines of text."""
    rows = [
        ("clients", verdict.clients),
        ("published", published),
        ("delivered", verdict.delivered),
        ("recovered", verdict.recovered),
        ("told lost", verdict.told_lost),
        ("out of order", verdict.disorder),
        ("duplicates", verdict.duplicates),
        ("unexplained", verdict.unexplained),
    ]
    lines = [f"{name:<20} {value:>12}" for name, value in [*done, *rows]]
    lines.insert(len(done), "-" * 33)
    return "\n".join([*lines, *verdict.faults[:20]])


def main() -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", 600))
    seed = os.environ.get("SOAK_SEED") or str(time.time_ns() % 1_000_000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the servers are ended on the way out
    say(f"{seconds:.0f} s with SOAK_SEED={seed}")
    verdict, published, done = soak(seconds, random.Random(seed))
    print(table(verdict, published, done))
    sys.exit(0 if verdict.honest else f"SOAK_SEED={seed}: something came twice, or is missing without a word")


if __name__ == "__main__":
    main()

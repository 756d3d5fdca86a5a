"""What hostile clients send: each attack ends as the settings say, is counted, and no neighbour notices.

The attacks are those that ``make bench-attacks`` measures (``testbed/attacks.py``). Beside each a neighbour exchanges
messages with the same worker; all of them must come back, in order.
"""

import contextlib
import functools
import re
import threading
import time

import pytest

from testbed import attacks
from testbed.attacks import DROPPED, OPEN, Attacker, Target
from testbed.processes import ROOT, wait_until
from testbed.uwsgi import as_in_uwsgi_ini

LONG_ENOUGH = 20.0  # seconds; all attacks but those that never end are over much sooner
FOR_EVER = 2.0  # seconds of an attack that never ends
FOUR_PER_ADDRESS, THREE_PER_USER = 4, 3


@pytest.fixture(scope="module")
def besieged(shared_serve):
    """One worker, with short deadlines, few connections per address and user, and a proxy in front of it."""
    options = {"TRUSTED_PROXIES": ["127.0.0.1"], "CLOSE_TIMEOUT": 3, "PING_INTERVAL": 4, "PING_TIMEOUT": 3}
    options |= {"RATE_LIMIT": [2000, 4000]}  # so that more than the kernel holds for a client can be asked for soon
    options |= {"MAX_CONNECTIONS_PER_ADDRESS": FOUR_PER_ADDRESS, "MAX_CONNECTIONS_PER_USER": THREE_PER_USER}
    return shared_serve(front="http-socket", gevent=50, settings={"WSLOOP": options})


@pytest.fixture(scope="module")
def patient(shared_serve):
    """One worker with the deadlines that are the default, behind uWSGI's http router too."""
    return shared_serve(front="http", gevent=50)


def target(site, *headers):
    return Target(("127.0.0.1", site.port), headers=headers)


def counted(site, setting):
    """How often the bound of a setting was reached."""
    text = site.request("GET", "/test/metrics/").text
    found = re.search(rf'^wsloop_bounds_reached_total{{setting="{setting}"}} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


class Neighbour(threading.Thread):
    """Sends a message, waits for it to come back, and sends the next one."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self._client = site.connect("/ws/echo/")
        self._over = threading.Event()
        self.problem = None
        self.exchanged = 0

    def run(self):
        try:
            while not self._over.wait(0.02):  # below RATE_LIMIT
                message = f"neighbour {self.exchanged}"
                self._client.send(message)
                got = self._client.next()
                assert got == message, f"{got!r} instead of {message!r}"
                self.exchanged += 1
        except Exception as problem:
            self.problem = problem

    def stop(self):
        before = self.exchanged
        wait_until(lambda: self.exchanged > before or self.problem, what="an echo after the attack")
        self._over.set()
        self.join()
        self._client.close()


@contextlib.contextmanager
def beside_a_neighbour(site):
    """While inside, a neighbour's messages come back one by one; afterwards the worker is still the same."""
    workers = site.workers()
    neighbour = Neighbour(site)
    neighbour.start()
    try:
        yield
    finally:
        neighbour.stop()
    assert neighbour.problem is None
    assert site.workers() == workers


def run(site, attack, count, seconds=LONG_ENOUGH, headers=()):
    """Run an attack beside a neighbour and return what became of the attackers."""
    with beside_a_neighbour(site):
        return attack(target(site, *headers), count, time.monotonic() + seconds)


# --- frames against the RFC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "count", "code"),
    [
        (attacks.garbage, 8, "1002"),
        (attacks.stray_continuation, 4, "1002"),
        (attacks.interleaved_fragments, 8, "1002"),
        (attacks.invalid_utf8, 6, "1007"),
        (attacks.unmasked, 4, "1002"),
        (attacks.reserved, 14, "1002"),
        (attacks.large_control_frame, 6, "1002"),
        (attacks.ended_stream, 4, "1002"),
    ],
)
def test_broken_frames_are_closed_with_the_code_of_the_rfc(besieged, attack, count, code):
    fates = run(besieged, attack, count)
    assert fates == [code] * len(fates)
    assert len(fates) >= count // 2


# --- much -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "setting", "code"),
    [
        (attacks.empty_fragments, "RATE_LIMIT", "4029"),
        (attacks.endless_message, "MAX_MESSAGE_SIZE", "1009"),
        (attacks.announce_much, "MAX_MESSAGE_SIZE", "1009"),
        (attacks.compression_bomb, "MAX_MESSAGE_SIZE", "1009"),
        (attacks.compression_bomb_in_fragments, "MAX_MESSAGE_SIZE", "1009"),
    ],
)
def test_floods_and_bombs_are_closed_and_counted(patient, attack, setting, code):
    before = counted(patient, setting)
    assert run(patient, attack, 4) == [code] * 4
    assert counted(patient, setting) == before + 4


@pytest.mark.parametrize("attack", [attacks.ping_flood, attacks.message_flood])
def test_a_flood_is_closed_and_counted(patient, attack):
    """The attacker goes on sending, so uWSGI's router may reset its connection before it reads why."""
    before = counted(patient, "RATE_LIMIT")
    fates = run(patient, attack, 4)
    assert len(fates) == 4
    assert set(fates) <= {"4029", DROPPED}
    assert counted(patient, "RATE_LIMIT") == before + 4


@pytest.mark.parametrize("attack", [attacks.steady_messages, attacks.one_byte_fragments])
def test_who_stays_within_the_rate_or_is_read_no_faster_may_stay(patient, attack):
    assert run(patient, attack, 2, FOR_EVER) == [OPEN] * 2


# --- slow -------------------------------------------------------------------------------------------------------------


def test_who_trickles_a_frame_is_waited_for_and_delays_nobody(patient):
    assert run(patient, attacks.trickle_in_a_frame, 10, FOR_EVER) == [OPEN] * 10


def test_who_trickles_headers_to_the_router_keeps_nobody_out(patient):
    """More of them than the worker has async cores: the router hands on whole requests only."""
    arrived = []

    def attack(at, count, until):
        attacking = threading.Thread(target=attacks.trickle_headers, args=(at, count, until))
        attacking.start()
        while attacking.is_alive():
            arrived.append(Attacker(at, patience=10))
            arrived[-1].reset()
            attacking.join(0.2)

    run(patient, attack, 100, FOR_EVER)
    assert arrived


def test_who_does_not_read_is_dropped(besieged):
    before = counted(besieged, "PING_TIMEOUT")
    attack = functools.partial(attacks.never_read, size=60_000)
    assert run(besieged, attack, 4) == [DROPPED] * 4
    assert counted(besieged, "PING_TIMEOUT") == before + 4  # the echo waits for them, and holds no more for them


def test_who_does_not_answer_pings_is_closed(besieged):
    before = counted(besieged, "PING_TIMEOUT")
    assert run(besieged, attacks.never_answer_pings, 10) == ["4008"] * 10
    assert counted(besieged, "PING_TIMEOUT") == before + 10


def test_who_does_not_answer_a_close_is_dropped(besieged):
    before = counted(besieged, "CLOSE_TIMEOUT")
    assert run(besieged, attacks.never_answer_a_close, 10) == [DROPPED] * 10
    assert counted(besieged, "CLOSE_TIMEOUT") == before + 10


@pytest.mark.parametrize("attack", [attacks.half_close, attacks.reset_in_a_frame, attacks.connect_and_leave])
def test_who_leaves_without_a_word_leaves_nothing_behind(besieged, attack):
    (before,) = besieged.descriptors().values()
    fates = run(besieged, attack, 10, FOR_EVER)
    assert set(fates) <= {DROPPED, "gone"}
    wait_until(lambda: list(besieged.descriptors().values()) <= [before], what="descriptors closed")


# --- many -------------------------------------------------------------------------------------------------------------


def test_connections_of_one_address_are_bounded(besieged):
    before = counted(besieged, "MAX_CONNECTIONS_PER_ADDRESS")
    fates = run(besieged, attacks.many_connections, 10, headers=["X-Forwarded-For: 8.8.4.4"])
    assert fates == [OPEN] * FOUR_PER_ADDRESS + ["HTTP 429"] * (10 - FOUR_PER_ADDRESS)
    assert counted(besieged, "MAX_CONNECTIONS_PER_ADDRESS") == before + 10 - FOUR_PER_ADDRESS


def test_what_a_client_says_in_front_of_the_proxy_s_own_word_is_not_believed(besieged):
    """The proxy appends the address that it sees: whatever the client made up stands before it."""
    attackers = [attacks.request(target(besieged, f"X-Forwarded-For: 9.9.9.{n}, 8.8.8.8")) for n in range(10)]
    open_ones = []
    for data in attackers[:FOUR_PER_ADDRESS]:
        open_ones.append(attacks.connect(("127.0.0.1", besieged.port), 10))
        open_ones[-1].sendall(data)
        assert b" 101 " in open_ones[-1].recv(65536)
    fates = [attacks.handshake(target(besieged), data) for data in attackers[FOUR_PER_ADDRESS:]]
    assert fates == ["HTTP 429"] * (10 - FOUR_PER_ADDRESS)
    for connection in open_ones:
        connection.close()


def test_connections_of_one_user_are_bounded(besieged):
    before = counted(besieged, "MAX_CONNECTIONS_PER_USER")
    fates = run(besieged, attacks.many_connections, 10, headers=[f"Cookie: {besieged.login('john')}"])
    assert fates == [OPEN] * THREE_PER_USER + ["HTTP 429"] * (10 - THREE_PER_USER)
    assert counted(besieged, "MAX_CONNECTIONS_PER_USER") == before + 10 - THREE_PER_USER


def test_connections_that_never_end_closing_count_too(besieged):
    """Until their deadline: who has sockets closed and does not hang up may not have more of them for it."""
    fates = run(besieged, attacks.hoard_closing_connections, 10, headers=["X-Forwarded-For: 1.1.1.1"])
    assert fates[: FOUR_PER_ADDRESS + 1] == ["1002"] * FOUR_PER_ADDRESS + ["HTTP 429"]


# --- handshakes -------------------------------------------------------------------------------------------------------


def test_large_headers_and_queries_are_refused(serve):
    """Larger than uWSGI's buffer: uWSGI hangs up. Larger than any real one: 431, and counted."""
    site = serve(front="http-socket", options=["--buffer-size", 16384])
    assert run(site, attacks.large_header, 4) == [DROPPED] * 4
    assert run(site, attacks.long_header, 4) == ["HTTP 431"] * 4
    assert run(site, attacks.many_subprotocols, 2) == ["HTTP 431"] * 2
    assert counted(site, "MAX_HEADER_SIZE") == 6


def test_long_facilities_are_refused(besieged):
    before = counted(besieged, "MAX_FACILITY_SIZE")
    assert run(besieged, attacks.long_facility, 4) == ["HTTP 414"] * 4
    assert counted(besieged, "MAX_FACILITY_SIZE") == before + 4


def test_control_characters_are_refused_or_cut_off(besieged):
    assert set(run(besieged, attacks.control_characters, 10)) <= {"HTTP 400", DROPPED, OPEN}


def test_duplicate_headers_open_nothing_odd(besieged):
    assert set(run(besieged, attacks.duplicate_headers, 6)) <= {"HTTP 400", "HTTP 426", OPEN, DROPPED}


def test_no_line_of_the_log_can_be_forged(serve):
    """With the format of uwsgi.ini; each request that was answered has a line all the same."""
    site = serve(front="http-socket", options=as_in_uwsgi_ini("log-format"))
    fates = run(site, attacks.forge_log, 8)
    site.request("GET", "/test/whoami/")
    wait_until(lambda: "GET /test/whoami/ 200" in site.log_since_mark(), what="the line of the last request")
    log = site.log_since_mark()
    assert not attacks.forged(log)
    assert len(re.findall(r"GET /ws/echo/\S* (?:101|4\d\d) ", log)) >= len(fates) - fates.count(DROPPED)


def test_the_page_has_a_row_for_every_attack():
    """Otherwise it was not measured after an attack was added: make bench-attacks BENCH=--write."""
    page = (ROOT / "docs/explanation/what-a-client-can-do.rst").read_text()
    assert [each.words for each in attacks.ATTACKS if page.count(f"\n{each.words}  ") < 2] == []

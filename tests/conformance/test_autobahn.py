"""Autobahn|Testsuite against ``/ws/echo/``: fast cases, or with ``AUTOBAHN=all`` (``make conformance``) all."""

import os

import pytest

from tests.conformance import autobahn, tools

EVERYTHING = os.environ.get("AUTOBAHN", "") == "all"
MIB = 1024 * 1024

# Autobahn sends up to 16 MiB in one message, and as fast as it can. Where it sends a frame in pieces it would put its
# answer to a ping between them.
SETTINGS = {
    "WS4REDIS_HEARTBEAT": None,
    "WSLOOP": {
        "MAX_MESSAGE_SIZE": 16 * MIB,
        "MAX_QUEUED_BYTES": 64 * MIB,
        "RATE_LIMIT": None,
        "PING_INTERVAL": 3600,
    },
}
PROTOCOL = autobahn.PROTOCOL if EVERYTHING else autobahn.FAST_PROTOCOL
COMPRESSION = autobahn.COMPRESSION if EVERYTHING else autobahn.FAST_COMPRESSION
MESSAGES = 1000 if EVERYTHING else 100  # in each case of those that send many
ROUTED_PROTOCOL = PROTOCOL if EVERYTHING else autobahn.ROUTED_PROTOCOL
ROUTED_COMPRESSION = COMPRESSION if EVERYTHING else autobahn.ROUTED_COMPRESSION


@pytest.fixture(scope="session")
def installed():
    """Autobahn is installed, which has a time limit of its own."""
    tools.python_of_autobahn()


@pytest.mark.timeout(3 * 3600 if EVERYTHING else 600)
@pytest.mark.parametrize(
    ("front", "options", "cases"),
    [
        pytest.param("http", [], ROUTED_PROTOCOL, id="http, protocol"),
        # The router copies 4 KiB at a time, which makes each message above it wait for 88 ms, and here are thousands.
        pytest.param("http", ["--http-buffer-size", "262144"], ROUTED_COMPRESSION, id="http, compression"),
        pytest.param("http-socket", [], PROTOCOL + COMPRESSION, id="http-socket"),
    ],
)
def test_the_deviations_are_exactly_those_explained(installed, serve, front, options, cases, tmp_path, capsys):
    def progress(line):
        if EVERYTHING:
            with capsys.disabled():
                print(f"\n  {front}: {line}", end="", flush=True)

    site = serve(front=front, options=["--disable-logging", *options], settings=SETTINGS)
    outcomes = autobahn.run(site.ws_url("echo/"), front, cases, MESSAGES, tmp_path, progress)
    progress(f"{len(outcomes)} cases, report: {tmp_path / 'index.html'}")

    # Some verdicts hang on the clock of Autobahn, in 6.4.3 on its pauses of a second, and a busy machine upsets it.
    if unexpected := sorted(autobahn.deviations(outcomes).items() ^ autobahn.expected_deviations(outcomes).items()):
        again = tmp_path / "again"
        again.mkdir()
        cases = sorted({case for case, _ in unexpected})
        outcomes |= autobahn.run(site.ws_url("echo/"), front, cases, MESSAGES, again, progress)

    found, expected = autobahn.deviations(outcomes), autobahn.expected_deviations(outcomes)
    stories = [outcomes[case].story() for case in found if found[case] != expected.get(case)]
    assert found == expected, "\n\n".join(["not as DEVIATIONS in autobahn.py has it:", *stories[:10]])

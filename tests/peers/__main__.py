"""``make peer-tests``: the tests of Channels, channels_redis and ws4redis as a measure for this package.

They run as they are, from a copy of their checkout, in several ways (:data:`tests.peers.suites.SUITES`). What must not
pass, or is not applicable, is listed with its reason in ``expected.toml``; anything else that does not pass is an
error, and so is an entry of the list that is not true any more. ``--write`` keeps the result in the documentation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers import report
from tests.peers.expected import Expected
from tests.peers.suites import SUITES, Suite

LIST = Path(__file__).with_name("expected.toml")


def main(arguments: Sequence[str] | None = None, suites: Mapping[str, Suite] = SUITES) -> None:
    """Run, compare and print; exit with an error unless everything is as the list says."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--channels", type=Path, metavar="CHECKOUT", help="of github.com/django/channels")
    parser.add_argument("--channels-redis", type=Path, metavar="CHECKOUT", help="of github.com/django/channels_redis")
    parser.add_argument("--ws4redis", type=Path, metavar="CHECKOUT", help="of github.com/jrief/django-websocket-redis")
    parser.add_argument("--only", choices=list(suites), help="one of the ways")
    parser.add_argument("--write", action="store_true", help="keep the result in the documentation")
    parser.add_argument("--list", type=Path, default=LIST, help="instead of expected.toml")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what pytest prints")
    options = parser.parse_args(arguments)
    checkouts = {"channels": options.channels, "channels_redis": options.channels_redis, "ws4redis": options.ws4redis}
    for suite in suites.values():
        checkout = checkouts[suite.peer]
        if checkout is not None and not (checkout / suite.tests).is_dir():
            sys.exit(f"{checkout} is no checkout of {suite.peer}: it has no {suite.tests}")
    wanted = [suite for suite in suites.values() if options.only in (None, suite.name) and checkouts[suite.peer]]
    if not wanted:
        sys.exit("Nothing to run: make peer-tests CHANNELS=/path/to/a/checkout CHANNELS_REDIS=... WS4REDIS=...")
    pages = {report.page_of(suite) for suite in wanted}
    if options.write and any(report.page_of(suite) in pages and suite not in wanted for suite in suites.values()):
        sys.exit("--write needs all that a page shows: make peer-tests CHANNELS=... CHANNELS_REDIS=... PEER=--write")

    results = []
    for suite in wanted:
        print(f"{suite.title}: running ...", flush=True)
        expected = Expected.read(options.list, suite.name)
        outcomes = suite.run(checkouts[suite.peer], expected.not_applicable, verbose=options.verbose)
        results.append(report.Result(suite, expected, outcomes))
        print(results[-1].summary(), flush=True)
    if any(result.problems for result in results):
        sys.exit(1)
    if options.write:
        for page in pages:
            report.write([each for each in results if report.page_of(each.suite) == page], checkouts, page)


if __name__ == "__main__":
    main()

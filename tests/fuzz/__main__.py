"""``make fuzz``: let libFuzzer look for input that a connection does not stand, for FUZZ_SECONDS.

The kernel's sockets and gevent's loop are part of each execution, so nothing stands between what is found here and what
a client could do. What has been found interesting is kept in ``var/fuzz`` for the next run; an input that fails goes to
``tests/fuzz/crashes``, from where ``tests/property`` replays it.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import atheris  # noqa: E402

HERE = Path(__file__).parent
FOUND = HERE.parent.parent / "var/fuzz"

with atheris.instrument_imports(include=["wsloop.sockets", "wsloop.protocol", "websockets"]):
    from tests.fuzz import script


def main():
    FOUND.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": os.environ.get("FUZZ_SECONDS", "60"),
        "artifact_prefix": f"{HERE / 'crashes'}/",
        "max_len": 2048,
        "timeout": 30,  # seconds: an input that takes as long has found a loop
        "print_final_stats": 1,
        "rss_limit_mb": 1024,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    print(
        f"Fuzzing for {options['max_total_time']} s. cov: branches reached, corp: inputs kept, exec/s: runs a second",
        flush=True,
    )
    atheris.Setup([sys.argv[0], *arguments, *sys.argv[1:], str(FOUND), str(HERE / "corpus")], script.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""asyncio's debug mode on the real server: all that coroutines do works in it, and it finds nothing wrong."""

import re

import pytest

MODULE = ["--module", "tests.integration.sites.coroutines"]


@pytest.fixture
def site(serve):
    settings = {"ROOT_URLCONF": "tests.integration.sites.coroutines"}
    env = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default"}
    return serve(front="http-socket", options=MODULE, settings=settings, env=env)


def test_views_streams_consumers_and_applications_work_in_debug_mode(site):
    done = site.request("GET", "/test/coroutines/").json()
    users = done["users"]
    assert done["debug"]
    assert (done["thread"], done["executor"], done["sync"], done["beside"]) == (users,) * 4
    assert len(done["names"]) == users
    assert done["meddled"].startswith("Non-thread-safe operation invoked on an event loop"), "a greenlet is no thread"
    assert site.request("GET", "/test/stream/").text.split() == [str(users)] * 3
    for path in ("works/", "any/path/"):
        clients = [site.connect(path) for _ in range(2)]
        clients[0].send("go")
        assert clients[0].next() == str(users)
        for client in clients:
            client.close()
    assert site.request("GET", "/accounts/login/").status == 200, "sync code sees no running loop"
    # Slow machines have slow callbacks.
    wrong = re.findall(
        r"(?m)^(?!.* asyncio: Executing ).*(?:Error|ERROR|Warning|was never awaited|Traceback).*$", site.log()
    )
    assert wrong == []

"""The guides that people come from, in a real browser: hosted as they are, and moved over; plain and as coroutines."""

import re
import time
from pathlib import Path

import pytest

from testbed.processes import wait_until
from tests.integration.test_browser import started_browsers, visiting
from tests.integration.test_consumers import refusal

__all__ = ["started_browsers"]  # a fixture

SITE = Path(__file__).parent / "sites/guides"
WAYS, KINDS = ["hosted", "moved", "within"], ["sync", "async"]


def moved(code):
    """Return code for Channels with the imports of wsloop: nothing else is changed."""
    code = code.replace("from channels.generic.websocket import", "from wsloop.consumers import")
    return re.sub(r"\bfrom channels\.(layers|db) import", r"from wsloop.\1 import", code)


@pytest.fixture(scope="module")
def guides(shared_serve, tmp_path_factory):
    """One server for all of them: two workers behind uWSGI's router."""
    directory = tmp_path_factory.mktemp("guides")
    (directory / "moved").mkdir()
    for source in (SITE / "live").glob("*.py"):
        (directory / "moved" / source.name).write_text(moved(source.read_text()))
    return shared_serve(
        processes=2,
        options=["--pythonpath", directory, "--module", "tests.integration.sites.guides.wsgi"],
        settings_module="tests.integration.sites.guides.settings",
    )


@pytest.fixture
def browser(started_browsers, guides):
    """A browser, whose console must have no errors at the end."""
    yield from visiting(started_browsers(0), guides)


@pytest.fixture
def other(started_browsers, guides):
    """Somebody else's browser."""
    yield from visiting(started_browsers(1), guides)


def shows(browser, selector, text):
    try:
        browser.until(lambda: browser.text(selector).split("\n") == text.split("\n"), text)
    except Exception:
        raise AssertionError(f"expected {text!r}, the page shows {browser.text(selector)!r}") from None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_random_numbers_begin_with_the_start_button(browser, guides, way, kind):
    browser.open(f"/guides/{way}/{kind}/numbers/")
    assert (browser.text("#number"), browser.text("#count")) == ("-", "0")
    began = time.monotonic()
    browser.press("#start")
    browser.until(lambda: int(browser.text("#count")) >= 1, "the first number")
    assert 1 <= int(browser.text("#number")) <= 100
    # Meanwhile the loop, which sleeps, is in nobody's way, whichever of the two workers has it.
    for neighbour in (guides.connect(f"{way}/sync/echo/", origin=guides.url) for _ in range(4)):
        neighbour.send("hello")
        assert neighbour.next() == "hello"
        neighbour.close()
    browser.until(lambda: int(browser.text("#count")) >= 3, "a number each second")
    assert int(browser.text("#count")) <= time.monotonic() - began + 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_echo(browser, guides, way, kind):
    browser.open(f"/guides/{way}/{kind}/echo/")
    shows(browser, "#log", "open")
    browser.find("#text").send_keys("Grüße")
    browser.press("#send")
    shows(browser, "#log", "open\nGrüße")
    client = guides.connect(f"{way}/{kind}/echo/", origin=guides.url)
    client.send_binary(b"\x00\xff")
    assert client.next() == b"\x00\xff"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_json(browser, way, kind):
    browser.open(f"/guides/{way}/{kind}/sum/")
    shows(browser, "#log", "open")
    browser.find("#numbers").send_keys("1 2 3.5")
    browser.press("#send")
    shows(browser, "#log", "open\n1 + 2 + 3.5 = 6.5")
    browser.press("#send")
    shows(browser, "#log", "open\n1 + 2 + 3.5 = 6.5\nnumbers are missing\nclosed 4400")


@pytest.mark.parametrize(
    ("way", "others"), [("hosted", "hosted"), ("moved", "moved"), ("moved", "within"), ("shared", "moved")]
)
def test_the_chat_room_with_plain_and_asynchronous_members(browser, other, guides, way, others):
    """With ``channels_redis`` where it is hosted, and else with wsloop's layer, which Channels' consumers share."""
    browser.open(f"/guides/{way}/sync/lobby/")
    browser.find("#room-name-input").send_keys("kitchen")
    browser.press("#room-name-submit")
    other.open(f"/guides/{others}/async/room/kitchen/")
    elsewhere = guides.connect(f"{way}/async/chat/garden/", origin=guides.url)
    for each in (browser, other):
        each.until(lambda each=each: each.find("#chat-message-submit").get_attribute("data-open"), "an open socket")

    def log(expected):
        for each in (browser, other):
            each.until(lambda each=each: each.find("#chat-log").get_property("value") == expected, expected)

    browser.find("#chat-message-input").send_keys("Hello from a function")
    browser.press("#chat-message-submit")
    log("Hello from a function\n")
    other.find("#chat-message-input").send_keys("hello from a coroutine\n")
    log("Hello from a function\nhello from a coroutine\n")
    said = "Hello from a function\nhello from a coroutine\n"
    for kind in KINDS:
        answer = guides.request("GET", f"/guides/{others}/{kind}/announce/kitchen/?text=from+a+view,+{kind}")
        assert answer.text == "announced"
        said += f"from a view, {kind}\n"
        log(said)
    other.open(f"/guides/{way}/async/lobby/")  # leaves the room
    browser.find("#chat-message-input").send_keys("still there\n")
    said += "still there\n"
    browser.until(lambda: browser.find("#chat-log").get_property("value") == said, said)
    elsewhere.send('{"message": "only here"}')
    assert elsewhere.next() == '{"message": "only here"}'


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_middleware_that_puts_the_user_of_a_token_and_a_team_into_the_scope(browser, guides, way, kind):
    browser.open(f"/guides/{way}/{kind}/team/")
    shows(browser, "#team", "mary of the chatters")
    assert refusal(guides, f"{way}/{kind}/team/?token=forged", origin=guides.url)[0] == 403
    assert refusal(guides, f"{way}/{kind}/team/", origin=guides.url)[0] == 403


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_signing_in_inside_of_a_socket(browser, guides, way, kind):
    browser.open(f"/guides/{way}/{kind}/sign-in/")
    shows(browser, "#who", "nobody, nobody")
    browser.write("username", "john")
    browser.write("password", "wrong")
    browser.press("#enter")
    shows(browser, "#who", "wrong")
    browser.find("[name=password]").clear()
    browser.write("password", "secret")
    browser.press("#enter")
    shows(browser, "#who", "john, john")
    browser.press("#ask")
    shows(browser, "#who", "john, john")
    key = browser.find("#who").get_attribute("data-session")
    wait_until(lambda: guides.request("GET", "/test/whoami/", cookies=f"sessionid={key}").json()["user"] == "john", 10)

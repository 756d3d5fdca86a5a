"""The page for developers, ``/inspector/``, in a real browser against real facilities and consumers."""

import contextlib
import json
import os
import re
import signal
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from tests.integration.test_browser import Browser

PHONE, DESKTOP = 390, 1280  # pixels wide
MOST_ENTRIES = 500
LISTEN = "?path=news&subscribe-broadcast"
BOTH_WAYS = f"{LISTEN}&publish-broadcast"
V1 = "&protocol=wsloop.v1"
AT_END = """
    const { scrollHeight, scrollTop, clientHeight } = document.querySelector("[data-log]");
    return scrollHeight - scrollTop - clientHeight < 2"""


class Inspector:
    """What a developer does on the page, and sees there."""

    def __init__(self, browser):
        self.browser = browser
        self.script = browser.driver.execute_script

    def open(self, query=""):
        self.browser.open(f"/inspector/{query}")
        self.browser.until(lambda: self.url().startswith("ws://"), "the script")

    def connect(self, query=None):
        if query is not None:
            self.open(query)
        self.browser.press("[data-connect]")
        self.until_state("OPEN")

    def until_state(self, state):
        self.browser.until(lambda: self.state() == state, f"readyState {state}")

    def send(self, text, kind="text"):
        self.browser.press(f"[name=kind][value={kind}]")
        field = self.browser.find("[name=message]")
        field.clear()
        field.send_keys(text)
        self.browser.press("[data-send-button]")

    def send_lines(self, count):
        """Send so many at once, as nobody types."""
        self.script(
            "const field = document.querySelector('[name=message]');"
            "for (let number = 0; number < arguments[0]; number += 1) {"
            "  field.value = `line ${number}`;"
            "  document.querySelector('[data-send-button]').click();"
            "}",
            count,
        )

    def send_file(self, file):
        self.browser.press("[name=kind][value=file]")
        self.browser.find("[name=file]").send_keys(str(file))
        self.browser.press("[data-send-button]")

    def replace(self, name, text):
        field = self.browser.find(f"[name={name}]")
        field.clear()
        field.send_keys(text)

    def press(self, modifier, key):
        ActionChains(self.browser.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def back_to(self, selector):
        """Press the tab key backwards until the element has the focus."""
        for _ in range(40):
            if self.browser.has_focus(selector):
                return
            self.press(Keys.SHIFT, Keys.TAB)
        raise AssertionError(f"{selector} cannot be reached backwards")

    # --- what it shows

    def url(self):
        return self.browser.text("[data-url]")

    def state(self):
        return self.browser.find("[data-ready-state]").get_attribute("data-ready-state")

    def fact(self, name):
        return self.browser.text(f"[data-fact={name}]")

    def error(self, field):
        return self.browser.text(f"#{field}-error")

    def entries(self, direction=None, kind=None):
        """The entries of the log, pings and heartbeats left out, as dictionaries."""
        script = """
            const text = (item, selector) => item.querySelector(selector)?.textContent ?? null;
            return [...document.querySelectorAll("[data-entries] > li:not([data-is-ping])")].map((item) => ({
                direction: item.dataset.direction, kind: item.dataset.kind, title: text(item, ".entry-title"),
                size: text(item, ".entry-size"), time: text(item, ".entry-time"), socket: text(item, ".entry-socket"),
                body: text(item, ".entry-text, .entry-data"), all: item.textContent,
                facts: Object.fromEntries([...item.querySelectorAll("dt")].map((name) =>
                    [name.textContent, name.nextSibling.textContent])),
            }))"""
        return [
            entry
            for entry in self.script(script)
            if direction in (None, entry["direction"]) and kind in (None, entry["kind"])
        ]

    def bodies(self, direction):
        return [entry["body"] for entry in self.entries(direction)]

    def until_logged(self, direction, kind, containing=""):
        """Wait for an entry and return the newest one."""

        def logged():
            return [entry for entry in self.entries(direction, kind) if containing in entry["all"]]

        self.browser.until(logged, f"{kind} {containing}")
        return logged()[-1]


@pytest.fixture(scope="module")
def sample(shared_serve):
    """The sample with the policy that it ships: staff may publish."""
    return shared_serve(settings={"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels"})


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


def sign_in(browser, site, username):
    browser.reset(site)
    browser.sign_in(username)


@pytest.fixture
def browser(chromium, sample, redis_client):
    """A browser in which an administrator has signed in; what it writes to its console fails the test."""
    for key in redis_client.scan_iter("ws:*", _type="string"):
        redis_client.delete(key)  # no message is kept from an earlier test
    sign_in(chromium, sample, "admin")
    yield chromium
    assert chromium.unexpected() == []


@pytest.fixture
def inspector(browser):
    return Inspector(browser)


# --- who may see it ---------------------------------------------------------------------------------------------------


def test_who_is_not_staff_does_not_see_it(browser):
    browser.reset(browser.site)
    browser.open("/inspector/")
    assert browser.driver.current_url.endswith("/accounts/login/?next=/inspector/")
    sign_in(browser, browser.site, "john")
    browser.open("/inspector/")
    assert browser.text("h1") == "You may not do this"
    with pytest.raises(NoSuchElementException):
        browser.find("[data-inspector]")
    assert ["403" in line for line in browser.console()] == [True]  # Chromium's own note about the reply


# --- connecting -------------------------------------------------------------------------------------------------------


def test_what_a_view_publishes_is_in_the_log(inspector, sample):
    inspector.connect(LISTEN + V1)
    assert inspector.fact("protocol") == "wsloop.v1"
    assert "permessage-deflate" in inspector.fact("extensions")
    assert re.fullmatch(r"[\d.]+ ms", inspector.fact("handshake"))
    opened = inspector.until_logged("event", "open")
    assert opened["facts"]["protocol"] == "wsloop.v1"
    welcome = json.loads(inspector.until_logged("in", "json", "welcome")["body"])
    assert welcome["subscribed"] == ["broadcast"]
    assert inspector.until_logged("in", "json", "welcome")["title"] == "welcome"
    sample.publish("news", "Grüße <b>an alle</b>", broadcast=True)
    entry = inspector.until_logged("in", "json", "Grüße")
    assert json.loads(entry["body"])["data"] == "Grüße <b>an alle</b>"
    assert '\n  "data": "Grüße' in entry["body"]  # laid out over lines
    assert entry["title"] == "message, broadcast"
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", entry["time"])
    assert re.fullmatch(r"\d+ B", entry["size"])
    inspector.browser.until(lambda: inspector.fact("received").startswith("2 messages"), "the counter")
    inspector.browser.press("[name=raw]")
    assert '{"type": "message"' in inspector.until_logged("in", "json", "Grüße")["body"]


def test_the_form_is_in_the_address_and_comes_back_with_it(inspector):
    browser = inspector.browser
    inspector.open("?path=inbox&subscribe-user&echo&protocol=one,two&more=room%3D7")
    host = browser.site.host
    assert inspector.url() == f"ws://{host}/ws/inbox?subscribe-user&echo&room=7"
    assert browser.find("[name=protocols]").get_property("value") == "one, two"
    browser.press("[name=subscribe-group]")
    inspector.replace("more", "token=s3cret&room=8")
    inspector.replace("protocols", "wsloop.v1 wsloop.token.s3cret")
    assert inspector.url() == f"ws://{host}/ws/inbox?subscribe-user&subscribe-group&echo&token=s3cret&room=8"
    browser.keys(Keys.TAB)
    address = browser.driver.current_url
    assert "s3cret" not in address
    expected = {"path": "inbox", "protocol": "wsloop.v1", "more": "room=8"}
    expected |= {"subscribe-user": "", "subscribe-group": "", "echo": ""}
    assert {name: value for name, (value,) in parse_qs(urlsplit(address).query, True).items()} == expected
    browser.driver.refresh()
    browser.until(lambda: inspector.url().endswith("?subscribe-user&subscribe-group&echo&room=8"), "the same again")
    assert browser.find("[name=protocol]").get_property("value") == "wsloop.v1"


def test_the_url_and_the_link_can_be_copied(inspector):
    browser = inspector.browser
    inspector.open("?path=form&subscribe-user&more=room%3D7")
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": permissions})
    inspector.replace("more", "token=s3cret")
    copied = "const done = arguments[0]; navigator.clipboard.readText().then(done)"
    expected = {
        "url": f"ws://{browser.site.host}/ws/form?subscribe-user&token=s3cret",
        "link": f"{browser.site.url}/inspector/?path=form&subscribe-user",
    }
    for what, text in expected.items():
        browser.press(f"[data-copy={what}]")
        browser.until(lambda text=text: browser.driver.execute_async_script(copied) == text, text)
    assert browser.text("[data-copied]") == "Copied."


def test_a_whole_url_can_be_pasted(inspector):
    browser = inspector.browser
    inspector.open()
    pasted = f"ws://{browser.site.host}/ws/form?subscribe-user&token=s3cret"
    field = browser.find("[name=path]")
    inspector.script("arguments[0].focus(); arguments[0].select()", field)
    browser.driver.execute_cdp_cmd("Input.insertText", {"text": pasted})
    assert inspector.url() == pasted
    browser.keys(Keys.TAB)
    assert urlsplit(browser.driver.current_url).query == "path=form&subscribe-user&protocol=wsloop.v1"
    assert field.get_property("value") == "form"
    assert browser.find("[name=subscribe-user]").is_selected()
    assert not browser.find("[name=subscribe-broadcast]").is_selected()
    assert browser.find("[name=more]").get_property("value") == "token=s3cret"
    inspector.replace("path", "wss://example.com/ws/form")
    browser.press("[data-connect]")
    assert inspector.error("path") == "You can only open sockets of this site, not of example.com."
    assert browser.has_focus("[name=path][aria-invalid=true]")
    assert inspector.state() == "not connected yet"


def test_a_consumer_of_the_list_is_asked_without_a_subprotocol(inspector):
    inspector.open()
    inspector.replace("path", "echo/")
    assert inspector.browser.find("[name=protocol]").get_property("value") == ""
    assert inspector.url().endswith("/ws/echo/")
    inspector.connect()  # the first click is enough: nothing moves when the field loses the focus
    assert inspector.fact("protocol") == "none"


def test_connecting_again_ends_the_socket_before(inspector):
    inspector.connect(LISTEN)
    inspector.browser.press("[data-connect]")
    closed = inspector.until_logged("event", "close")
    assert (closed["socket"], closed["title"]) == ("#1", "closed with 1000")
    inspector.browser.until(lambda: len(inspector.entries("event", "open")) == 2, "another socket")
    assert inspector.entries("event", "open")[-1]["socket"] == "#2"
    inspector.until_state("OPEN")


# --- sending ----------------------------------------------------------------------------------------------------------


def test_text_json_and_a_file_go_to_the_echo_and_come_back(inspector, tmp_path):
    browser = inspector.browser
    file = tmp_path / "bytes.bin"
    file.write_bytes(bytes(range(256)) * 2)
    inspector.connect("?path=echo/")
    inspector.send("Grüße\nzwei")
    assert inspector.until_logged("in", "text")["body"] == "Grüße\nzwei"
    inspector.send('{"a": [1, 2]}', kind="json")
    assert json.loads(inspector.until_logged("in", "json")["body"]) == {"a": [1, 2]}
    inspector.send_file(file)
    entry = inspector.until_logged("in", "binary")
    assert entry["size"] == "512 B"
    first, *_, last = entry["body"].splitlines()
    assert first == "000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................"
    assert last.startswith("0000f0")
    browser.driver.find_elements(By.XPATH, "//button[text()='Show all 512 bytes']")[-1].click()
    assert inspector.until_logged("in", "binary")["body"].splitlines()[-1].startswith("0001f0")
    browser.press("[data-repeat]")
    browser.until(lambda: len(inspector.entries("in", "binary")) == 2, "the same once more")
    assert [entry["kind"] for entry in inspector.entries("out")] == ["text", "json", "binary", "binary"]
    browser.until(lambda: inspector.fact("sent").startswith("4 messages, 1 KiB"), "the counter")


def test_a_binary_message_can_be_saved(inspector, tmp_path):
    browser = inspector.browser
    file = tmp_path / "bytes.bin"
    file.write_bytes(content := os.urandom(3000))
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    )
    inspector.connect("?path=echo/")
    inspector.send_file(file)
    inspector.until_logged("in", "binary")
    browser.driver.find_elements(By.CSS_SELECTOR, "[data-direction=in] [aria-label^='Save the binary']")[-1].click()
    saved = tmp_path / "saved"
    browser.until(lambda: [each.read_bytes() for each in saved.glob("*.bin")] == [content], "the file")


def test_staff_publish_with_the_echo_and_without_a_frame(inspector):
    inspector.connect(f"{BOTH_WAYS}&echo")
    inspector.send("to everybody")
    assert inspector.until_logged("in", "text")["body"] == "to everybody"


def test_a_frame_of_v1_is_made_of_what_was_written(inspector):
    browser = inspector.browser
    inspector.connect(BOTH_WAYS + V1)
    browser.press("[name=kind][value=file]")
    assert not browser.find("[data-frame]").is_displayed()  # bytes are published as they are
    browser.press("[name=kind][value=text]")
    browser.write("message", 'say "hello"')
    browser.press("[data-frame]")
    assert browser.has_focus("[name=message]")
    inspector.press(Keys.CONTROL, Keys.ENTER)
    inspector.until_logged("in", "json", '"ack"')
    assert json.loads(inspector.until_logged("in", "json", '"own": true')["body"])["data"] == 'say "hello"'


def test_json_that_is_none_is_not_sent(inspector):
    browser = inspector.browser
    inspector.connect("?path=echo/")
    inspector.send('{"a": 1,\n "b": }', kind="json")
    assert inspector.error("message") == "Invalid JSON: line 2, column 7: a value expected, not “}”."
    assert browser.has_focus("[name=message][aria-invalid=true][aria-describedby~=message-error]")
    assert inspector.script("return document.activeElement.selectionStart") == 15
    assert inspector.fact("sent") == "0 messages, 0 B"
    browser.keys(Keys.ARROW_LEFT, "2")
    assert not browser.find("#message-error").is_displayed()
    inspector.press(Keys.CONTROL, Keys.ENTER)
    inspector.until_logged("in", "json")


def test_what_is_too_big_is_warned_of_and_closes_the_socket(inspector, tmp_path):
    browser = inspector.browser
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(64 * 1024 + 1))
    inspector.connect("?path=echo/")
    browser.press("[name=kind][value=file]")
    browser.find("[name=file]").send_keys(str(file))
    assert "more than MAX_MESSAGE_SIZE, 64 KiB" in browser.text("[data-size]")
    browser.press("[data-send-button]")
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 1009"
    assert closed["facts"]["what the client does"] == "send smaller messages"


def test_nothing_can_be_sent_before_and_after_and_it_says_why(inspector):
    browser = inspector.browser
    inspector.open("?path=echo/")
    assert browser.text("#send-why") == "Connect first."
    inspector.send("too early")
    inspector.connect()
    assert browser.text("#send-why") == ""
    browser.press("[data-disconnect]")
    inspector.until_state("CLOSED")
    assert browser.text("#send-why") == "You cannot send: readyState is CLOSED."
    browser.find("[name=message]").send_keys(Keys.CONTROL, Keys.ENTER)
    assert inspector.fact("sent") == "0 messages, 0 B"


# --- closing ----------------------------------------------------------------------------------------------------------


def test_the_code_and_the_reason_of_a_close_are_chosen(inspector):
    browser = inspector.browser
    inspector.connect("?path=echo/")
    inspector.replace("code", "1001")
    browser.press("[data-disconnect]")
    assert inspector.error("close") == "A script may close with 1000, or with 3000 to 4999."
    assert browser.has_focus("[name=code][aria-invalid=true]")
    inspector.replace("code", "4321")
    inspector.replace("reason", "ü" * 62)
    browser.press("[data-disconnect]")
    assert inspector.error("close") == "The reason has 124 bytes; a close frame takes up to 123."
    assert browser.has_focus("[name=reason][aria-invalid=true]")
    assert inspector.state() == "OPEN"
    inspector.replace("reason", "seen enough")
    browser.press("[data-disconnect]")
    inspector.until_state("CLOSED")
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 4321"
    assert closed["facts"]["wasClean"] == "true"
    assert closed["facts"]["meaning"].startswith("private")


def test_the_close_of_a_logout_is_explained(inspector):
    browser = inspector.browser
    inspector.connect(f"?path=form&subscribe-user{V1}")
    browser.sign_out_in_another_tab()
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 4001"
    assert closed["facts"]["meaning"].startswith("signed out: logout")
    assert closed["facts"]["what the client does"].startswith("do not reconnect")
    assert "4001: signed out" in browser.text(".ready")
    assert '"reconnect": false' in inspector.until_logged("in", "json", "goodbye")["body"]


def test_a_refused_handshake_is_explained(inspector):
    browser = inspector.browser
    inspector.open("?path=a:b&subscribe-user&more=x%3D1")
    inspector.replace("more", "token=s3cret")
    browser.press("[data-connect]")
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 1006"
    assert "the server refused the handshake" in closed["facts"]["meaning"]
    assert (closed["facts"]["wasClean"], closed["facts"]["open for"]) == ("false", "never")
    error = inspector.until_logged("event", "error")
    assert error["title"] == "the handshake failed"
    assert "Browsers do not give scripts the reason" in error["all"]
    assert "colon" in error["facts"]["400"]
    assert "s3cret" not in error["all"]
    browser.press(".entry-help summary")
    command = browser.text(".entry-help pre")
    assert f"'http://{browser.site.host}/ws/a%3Ab?subscribe-user&token=…'" in command
    assert ["403" in line for line in browser.console()] == [True]  # the token comes before the colon


def test_a_socket_that_is_refused_says_why(inspector):
    inspector.open(f"?path=a:b&subscribe-user{V1}")
    inspector.browser.press("[data-connect]")
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 4030"
    assert closed["facts"]["wasClean"] == "true"
    assert closed["facts"]["reason"].startswith("A facility with a colon cannot have the audiences user and group")
    assert closed["facts"]["what the client does"].startswith("do not reconnect")
    assert '"reconnect": false' in inspector.until_logged("in", "json", "goodbye")["body"]


@contextlib.contextmanager
def standing_still(site):
    """Its only worker does nothing meanwhile."""
    (worker,) = site.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_handshake_that_takes_too_long_can_be_given_up(serve, inspector):
    site = serve(processes=1)
    browser = inspector.browser
    sign_in(browser, site, "admin")
    inspector.open(LISTEN)
    with standing_still(site):
        browser.press("[data-connect]")
        assert inspector.state() == "CONNECTING"
        assert browser.text("#send-why") == "You cannot send: readyState is CONNECTING."
        assert browser.text("[data-disconnect]") == "Cancel"
        browser.press("[data-disconnect]")
        inspector.until_logged("event", "error", "cancelled before the socket was open")
        inspector.until_state("CLOSED")
    assert ["closed before the connection is established" in line for line in browser.console()] == [True]


def test_what_waits_to_be_sent_is_shown(serve, inspector, tmp_path):
    # Compressed it would be so small that the kernel takes it at once.
    options = {"RATE_LIMIT": None, "MAX_MESSAGE_SIZE": 1 << 25, "COMPRESS_FROM": None}
    site = serve(processes=1, settings={"WSLOOP": options})
    browser = inspector.browser
    sign_in(browser, site, "admin")
    inspector.connect(LISTEN)
    with standing_still(site):
        # More than the kernel takes on the way to the router and on to the worker: some 10 MiB each. A file, because
        # Chromium takes ten seconds to lay out so long a text.
        (tmp_path / "long").write_bytes(bytes(3 * 2**23))
        inspector.send_file(tmp_path / "long")
        browser.until(lambda: int(inspector.fact("buffered").split()[0]) > 1 << 20, "bytes that wait")
    browser.until(lambda: inspector.fact("buffered") == "0 bytes", "all has been taken")
    assert inspector.state() == "OPEN"


def test_a_server_that_dies_is_explained(serve, inspector):
    site = serve(processes=1)
    browser = inspector.browser
    sign_in(browser, site, "admin")
    inspector.connect(LISTEN)
    os.kill(site.workers()[0], signal.SIGKILL)
    closed = inspector.until_logged("event", "close")
    assert closed["title"] == "closed with 1006"
    assert closed["facts"]["open for"] != "never"
    inspector.until_state("CLOSED")


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_filtered_paused_and_cleared(inspector):
    browser = inspector.browser
    inspector.connect("?path=echo/")
    for text in ("one", "two"):
        inspector.send(text)
        inspector.until_logged("in", "text", text)
    browser.write("words", "two")
    assert inspector.bodies("in") == inspector.bodies("out") == ["two"]
    assert re.fullmatch(r"2 of \d+ entries", browser.text("[data-count]"))
    browser.press("[name=in]")
    assert [entry["direction"] for entry in inspector.entries()] == ["out"]
    browser.press("[name=in]")
    browser.find("[name=words]").clear()
    browser.find("[name=words]").send_keys(" ", Keys.BACKSPACE)
    browser.press("[data-pause]")
    before = len(inspector.entries())
    inspector.send("three")
    browser.until(lambda: "more since the pause" in browser.text("[data-count]"), "it is told")
    assert len(inspector.entries()) == before
    browser.press("[data-pause]")
    inspector.until_logged("in", "text", "three")
    browser.press("[data-clear]")
    assert inspector.entries() == []


def test_the_log_is_bounded_and_says_so(inspector, sample):
    inspector.connect(LISTEN)
    sample.publish("news", *(f"number {number}" for number in range(1, 601)), broadcast=True)
    inspector.until_logged("in", "text", "number 600")
    count = inspector.script("return document.querySelector('[data-entries]').childElementCount")
    assert count == MOST_ENTRIES
    dropped = inspector.browser.text("[data-dropped]")
    assert re.fullmatch(r"\d+ older entries were dropped: the log keeps 500 entries and 16 MiB\.", dropped)
    assert inspector.bodies("in")[-1] == "number 600"
    inspector.browser.until(lambda: inspector.script(AT_END), "the newest is seen")


def test_the_log_follows_the_newest_until_somebody_scrolls(inspector):
    browser = inspector.browser
    inspector.connect("?path=echo/")
    box = "const box = document.querySelector('[data-log]');"
    inspector.send_lines(20)
    inspector.until_logged("in", "text", "line 19")
    assert inspector.script(AT_END)
    inspector.script(f"{box} box.scrollTop = 0")
    browser.until(lambda: browser.find("[data-newest]").is_displayed(), "the way back")
    inspector.send("line 20")
    inspector.until_logged("in", "text", "line 20")
    assert inspector.script(f"{box} return box.scrollTop") == 0
    browser.press("[data-newest]")
    browser.until(lambda: inspector.script(AT_END), "the newest")
    assert not browser.find("[data-newest]").is_displayed()


def test_the_way_to_the_newest_is_gone_as_soon_as_it_is_taken(inspector):
    """At once, not when the scroll event comes with the next frame."""
    browser = inspector.browser
    inspector.connect("?path=echo/")
    inspector.send_lines(20)
    inspector.until_logged("in", "text", "line 19")
    inspector.script("document.querySelector('[data-log]').scrollTop = 0")
    browser.until(lambda: browser.find("[data-newest]").is_displayed(), "the way back")
    way = "const way = document.querySelector('[data-newest]'); way.click(); return way.hidden"
    assert inspector.script(way)


# --- round trips ------------------------------------------------------------------------------------------------------


def figures(browser):
    return [browser.text(f"[data-figure={name}]") for name in ("last", "min", "average", "max")]


@pytest.mark.parametrize("query", [f"{LISTEN}{V1}", f"{BOTH_WAYS}{V1}", "?path=echo/"])
def test_round_trips_are_measured_and_publish_nothing(inspector, sample, query):
    browser = inspector.browser
    listener = sample.connect("news?subscribe-broadcast")
    inspector.connect(query)
    assert not any("ms" in figure for figure in figures(browser))
    for number in range(1, 4):
        browser.press("[data-ping]")
        caption = f"{number} measurement"
        browser.until(lambda caption=caption: browser.text("[data-plot-caption]").startswith(caption), caption)
    assert all(re.fullmatch(r"[\d.]+ ms", figure) for figure in figures(browser))
    last, least, average, most = (float(figure.split()[0]) for figure in figures(browser))
    assert 0 < least <= last <= most and least <= average <= most
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] rect.answered")) == 3
    sample.publish("news", "afterwards", broadcast=True)
    assert listener.until("afterwards") == []
    browser.press("[name=ping]")
    assert "round-trip" not in browser.text("[data-log]")


def test_a_series_of_round_trips_goes_on_until_it_is_stopped(inspector):
    browser = inspector.browser
    inspector.connect("?path=echo/")
    browser.press("[data-ping-series]")
    assert browser.find("[data-ping-series]").get_attribute("aria-pressed") == "true"
    browser.until(lambda: browser.text("[data-plot-caption]").startswith("3 measurements"), "three of them")
    browser.press("[data-disconnect]")
    inspector.until_state("CLOSED")
    assert browser.find("[data-ping-series]").get_attribute("aria-pressed") == "false"
    assert browser.find("[data-ping]").get_attribute("aria-disabled") == "true"


def test_where_a_round_trip_cannot_be_measured_it_says_why(inspector):
    browser = inspector.browser
    inspector.connect(BOTH_WAYS)
    assert browser.text("#ping-why").startswith("Cannot measure this socket")
    browser.press("[data-ping]")
    assert inspector.fact("sent") == "0 messages, 0 B"


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_by_keyboard_alone(inspector):
    browser = inspector.browser
    inspector.open("?path=&protocol=")
    browser.tab_to("[name=path]")
    browser.keys(Keys.ENTER)
    assert inspector.error("path") == "Choose a path, or type one."
    browser.keys("echo/")
    browser.tab_to("[name=echo]")
    browser.keys(Keys.SPACE, Keys.SPACE)
    browser.tab_to("[data-connect]")
    browser.keys(Keys.ENTER)
    inspector.until_state("OPEN")
    assert browser.has_focus("[data-connect]")
    browser.tab_to("[data-log]")
    browser.tab_to("[name=message]")
    browser.keys("no mouse")
    inspector.press(Keys.CONTROL, Keys.ENTER)
    assert inspector.until_logged("in", "text")["body"] == "no mouse"
    browser.tab_to("[data-ping]")
    browser.keys(Keys.SPACE)
    browser.until(lambda: browser.text("[data-plot-caption]").startswith("1 measurement"), "a round trip")
    inspector.back_to("[name=reason]")
    browser.keys("done", Keys.ENTER)
    inspector.until_state("CLOSED")
    inspector.until_logged("event", "note", "“done”")


def busy(inspector, tmp_path):
    """Everything that the page can show, at once."""
    browser = inspector.browser
    file = tmp_path / "bytes.bin"
    file.write_bytes(bytes(range(256)) * 2)
    inspector.connect("?path=echo/&more=" + "x" * 100)
    inspector.send("a word that is very long: " + "x" * 300)
    inspector.send(json.dumps({"nested": {"list": ["y" * 200]}}), kind="json")
    inspector.send_file(file)
    inspector.until_logged("in", "binary")
    browser.press("[data-ping]")
    browser.until(lambda: browser.text("[data-plot-caption]").startswith("1 measurement"), "a round trip")
    browser.press("[data-disconnect]")
    inspector.until_state("CLOSED")
    inspector.replace("path", "a:b")
    browser.press("[name=subscribe-user]")
    browser.press("[data-connect]")  # refused: a colon
    inspector.until_logged("event", "error")
    inspector.script("document.querySelector('.entry-help').open = true")
    inspector.send("{", kind="json")
    browser.console()  # Chromium's note about the refusal


def test_a_busy_page_fits_can_be_read_and_names_its_controls(inspector, tmp_path):
    browser = inspector.browser
    busy(inspector, tmp_path)
    too_wide = """
        return ["html", "[data-log]"].filter((selector) => {
            const { scrollWidth, clientWidth } = document.querySelector(selector);
            return scrollWidth > clientWidth;
        })"""
    for width in (PHONE, DESKTOP):
        browser.width(width)
        assert inspector.script(too_wide) == []
    assert browser.hard_to_read() == []
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = {"button", "textbox", "searchbox", "combobox", "checkbox", "radio", "link", "DisclosureTriangle", "log"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if node["role"]["value"] in controls and not node["ignored"] and not node.get("name", {}).get("value")
    ]
    assert nameless == []

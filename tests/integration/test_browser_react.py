"""The page that React makes, in a real browser: with the built files, and with Vite's development server."""

import contextlib
import json
import os
import shutil
import signal

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from project import settings as project_settings
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.integration.test_browser import browser, clean, other, started_browsers

__all__ = ["browser", "clean", "other", "started_browsers"]  # fixtures; `sample` below is what they open

POLICY = {"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels"}
# Records the sockets of the page, and the frames that it sends.
SPY = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    if (!url.includes("/vite/")) sockets.push({ path: new URL(url).pathname, socket: this, sent: this.sent = [] });
  }
  send(data) {
    this.sent?.push(data);
    super.send(data);
  }
};
"""
SOCKETS = "return sockets.map(({ path, socket, sent }) => [path, socket.readyState, sent])"
OPEN = 1


@pytest.fixture(scope="module")
def sample(shared_serve):
    """The site as it is run without Node."""
    return shared_serve(settings=POLICY)


def opened(browser, url=None):
    """Open the page with the spy, and wait until all is there."""
    spy = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
    try:
        browser.driver.get(url or f"{browser.site.url}/react/")
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", spy)


def connected(browser):
    browser.until(lambda: browser.text("[data-line]") == "connected", "connected")


def present(browser, *people):
    """Wait until these are present. Others of an earlier test may still be there, too."""

    def names():
        return {item.text for item in browser.driver.find_elements(By.CSS_SELECTOR, "[data-people] li")}

    browser.until(lambda: names() >= set(people), f"present are {people}")


def shows(browser, *messages):
    """Wait until these are the newest messages; the history has those of earlier tests."""
    browser.until(lambda: browser.messages()[: len(messages)] == list(messages), f"{messages} are shown")


def sockets(browser):
    return [(path, state) for path, state, _ in browser.driver.execute_script(SOCKETS)]


def subscribes(browser):
    """The facilities to which the page has subscribed, in order."""
    frames = [
        json.loads(data) for path, _, sent in browser.driver.execute_script(SOCKETS) if path == "/ws/" for data in sent
    ]
    flat = [each for frame in frames for each in (frame if isinstance(frame, list) else [frame])]
    return [frame["facility"] for frame in flat if frame["type"] == "subscribe"]


def send(browser, text, to=None):
    if to:
        browser.find(f"#to option[value='{to}']" if to != "mary" else "#to option:last-child").click()
    browser.write("message", text)
    browser.press("#react form button")
    browser.until(lambda: browser.text("[data-status]") == "Sent.", "sent")


def severe(browser):
    """Warnings and errors of the console; Vite and React also write what is neither."""
    return [entry["message"] for entry in browser.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]


def stays_silent(browser):
    """The page has written no warning and no error; the next one begins with an empty console."""
    assert severe(browser) == []
    browser.driver.get("about:blank")
    browser.console()


# --- the built files --------------------------------------------------------------------------------------------------


def test_notices_who_is_here_and_send(browser, other):
    browser.sign_in("john")
    opened(browser)
    connected(browser)
    other.sign_in("mary")
    opened(other)
    present(browser, "john (you)", "mary")
    present(other, "john", "mary (you)")
    send(browser, "for mary alone", to="mary")
    shows(other, ("user", "john", "for mary alone"))
    send(other, "for all")
    shows(browser, ("broadcast", "mary", "for all"))
    shows(other, second := ("broadcast", "mary", "for all"), first := ("user", "john", "for mary alone"))
    assert other.text("[data-unread]") == "2 new"
    other.press("[aria-labelledby=notices] button")
    other.until(lambda: other.text("[data-unread]") == "", "nothing is new")
    assert other.has_focus("#notices")
    # Components share one socket, and one subscription for each facility.
    assert sorted(sockets(other)) == [("/ws/", OPEN), ("/ws/echo/", OPEN)]
    assert sorted(subscribes(other)) == ["inbox", "react"]
    other.open("/react/")
    shows(other, second, first)  # of the history
    assert other.messages().count(first) == 1  # though Redis retains it, too
    assert other.text("[data-unread]") == ""
    other.press("[aria-labelledby=echo] button")
    other.until(lambda: other.text("[data-echo]").startswith("The answer took"), "the consumer answers")


def test_a_visitor_reads_and_an_error_stands_below_the_form(browser, other):
    opened(other)
    connected(other)
    assert other.text("[aria-labelledby=send]") == "Send\nTo send, sign in."
    browser.sign_in("john")
    opened(browser)
    send(browser, "for everybody")
    shows(other, ("broadcast", "john", "for everybody"))
    browser.driver.delete_cookie("sessionid")
    browser.write("message", "do not lose me")
    browser.press("#react form button")
    browser.until(lambda: browser.text("[data-status]") == "Sign in, then send it again.", "the form says so")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert browser.has_focus("[name=message][aria-invalid=true][aria-describedby=send-status]")
    assert len(browser.console()) == 2  # Chromium's own note about the reply, and the page's


def test_the_page_says_when_it_is_signed_out(browser):
    browser.sign_in("john")
    opened(browser)
    connected(browser)
    browser.sign_out_in_another_tab()
    browser.until(lambda: browser.text("[data-line]").startswith("offline (signed out)"), "it says so")
    assert browser.text("[data-line] a") == "Reload the page"
    browser.until(lambda: browser.text(".account") == "Signed out\nSign in", "the header says so")
    assert browser.text("[aria-labelledby=notices] .note") == "Nothing arrives any more: signed out."


def test_it_can_be_read_and_used_by_keyboard(browser):
    browser.sign_in("john")
    for width in (390, 1280):
        browser.width(width)
        opened(browser)
        connected(browser)
        assert browser.hard_to_read() == []
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width
    browser.tab_to("#to")
    browser.keys(Keys.TAB, "by keyboard", Keys.TAB, Keys.SPACE)
    browser.until(lambda: browser.text("[data-status]") == "Sent.", "sent")
    shows(browser, ("broadcast", "john", "by keyboard"))
    assert browser.hard_to_read() == []


# --- Vite -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frontend(node_modules, tmp_path_factory):
    """A copy of what Vite serves, which a test may change."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in ("frontend", "wsloop/static/wsloop"):
        shutil.copytree(ROOT / path, copy / path)
    shutil.copy(ROOT / "package.json", copy)
    (copy / "node_modules").symlink_to(node_modules)
    return copy / "frontend"


@pytest.fixture(scope="module")
def origin():
    """The port of Vite in each test."""
    return f"http://localhost:{free_port()}"


@pytest.fixture(scope="module")
def development(shared_serve, origin):
    """The site as its developer runs it; of the ports that its settings name one is that of the tests."""
    wsloop = {"FACILITIES": project_settings.WSLOOP["FACILITIES"], "ALLOWED_ORIGINS": [origin]}
    settings = POLICY | {"WSLOOP": wsloop, "CSRF_TRUSTED_ORIGINS": [origin]}
    return shared_serve(settings=settings, env={"DJANGO_DEBUG": "1"})


@pytest.fixture
def vite(frontend, origin, tmp_path):
    """Start Vite for a site, behind which it is a proxy, too."""
    with contextlib.ExitStack() as stack:

        def start(site, **env):
            port = origin.rpartition(":")[2]
            command = [str(frontend.parent / "node_modules/.bin/vite"), str(frontend), "--port", port, "--strictPort"]
            where = {"DJANGO": site.url, "VITE_FILE": str(site.directory / "vite.json")}
            env = {**os.environ, "NO_COLOR": "1", **where, **env}
            process = stack.enter_context(Process(command, tmp_path / "vite.log", env))
            wait_until((site.directory / "vite.json").exists, what="Vite")
            return process

        yield start


def reloads(vite, times, what="hmr update"):
    """Wait until Vite has said so often that it reloads modules."""
    try:
        wait_until(lambda: vite.log().count(what) >= times, 60)
    except AssertionError:
        raise AssertionError(f"{what!r} was not said {times} times:\n{vite.log()}") from None


def uses_vite(site):
    return "@vite/client" in site.request("GET", "/react/").text


def test_django_finds_out_whether_the_development_server_is_there(development, vite, origin):
    built = "/react/ uses the built files"
    assert built in development.log()  # said when the site was started
    page = development.request("GET", "/react/")
    assert '/static/react/main.js"' in page.text
    assert "localhost" not in page.headers["Content-Security-Policy"]
    process = vite(development)
    wait_until(lambda: uses_vite(development), what="it is found")
    assert f"/react/ uses the development server of Vite at {origin}" in development.log()
    page = development.request("GET", "/react/")
    assert f'src="{origin}/vite/src/development.ts"' in page.text
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    development.mark_log()
    os.killpg(process.pid, signal.SIGKILL)  # its file stays
    wait_until(lambda: not uses_vite(development), what="the built files are used again")
    assert development.log_since_mark().count(built) == 1
    assert (development.directory / "vite.json").exists()
    (development.directory / "vite.json").unlink()


def test_strict_mode_writes_nothing_and_a_hot_reload_keeps_the_socket(browser, development, vite, frontend):
    process = vite(development)
    browser.reset(development)
    browser.sign_in("john")
    wait_until(lambda: uses_vite(development), what="it is found")
    opened(browser)
    connected(browser)
    present(browser, "john (you)")
    send(browser, "before")
    shows(browser, ("broadcast", "john", "before"))
    before = browser.driver.execute_script(SOCKETS)
    assert sorted(sockets(browser)) == [("/ws/", OPEN), ("/ws/echo/", OPEN)]  # StrictMode mounts everything twice
    assert sorted(subscribes(browser)) == ["inbox", "react"]
    browser.driver.execute_script("window.isStillTheSamePage = true")
    for module, old, new, selector in (
        ("People.tsx", "Who is here", "Who is there", "#people"),
        ("socket.ts", "One socket", "The socket", None),
        ("notices.ts", "limit: 50,", "limit: 49,", None),
        ("Notices.tsx", "\n          Notices\n", "\n          Notes\n", "#notices"),
    ):
        path = frontend / "src" / module
        assert old in path.read_text()
        updates = process.log().count("hmr update")
        path.write_text(path.read_text().replace(old, new))
        reloads(process, updates + 1)
        if selector:
            browser.until(lambda selector=selector: browser.text(selector) in ("Who is there", "Notes"), "it is shown")
    send(browser, "afterwards")
    shows(browser, ("broadcast", "john", "afterwards"), ("broadcast", "john", "before"))
    assert browser.driver.execute_script("return window.isStillTheSamePage")
    after = browser.driver.execute_script(SOCKETS)
    assert [each[:2] for each in after] == [each[:2] for each in before]
    assert severe(browser) == []
    path = frontend / "src/Echo.tsx"
    path.write_text(path.read_text().replace("onMessage: ", "parse: JSON.parse,\n    onMessage: "))
    reloads(process, 1, "hmr update /src/Echo.tsx")
    errors = []

    def dropped():
        browser.press("[aria-labelledby=echo] button")
        errors.extend(severe(browser))
        return errors

    browser.until(dropped, "the consumer answers what cannot be parsed")
    assert all("/ws/echo/: a message is dropped, because it cannot be parsed" in error for error in errors)
    browser.driver.get("about:blank")
    browser.console()


@pytest.mark.parametrize("change_origin", ["", "1"], ids=["the Host stays", "changeOrigin"])
def test_the_page_works_through_the_proxy_of_vite(browser, development, vite, origin, change_origin):
    vite(development, CHANGE_ORIGIN=change_origin)
    browser.reset(development)
    browser.site = type("Proxied", (), {"url": origin, "session_keys": development.session_keys})
    browser.sign_in_by_form("john")  # a form of Django, with cookies and CSRF
    browser.console()  # the start page names the host of its socket: with changeOrigin that is another one
    wait_until(lambda: uses_vite(development), what="it is found")
    opened(browser)
    connected(browser)
    send(browser, f"through {origin}")
    shows(browser, ("broadcast", "john", f"through {origin}"))
    stays_silent(browser)


def test_what_refuses_says_which_setting_is_missing(browser, sample, vite, origin):
    """A site that knows nothing of the proxy, which replaces the Host."""
    vite(sample, CHANGE_ORIGIN="1")
    browser.reset(sample)
    browser.sign_in_by_form("john")
    cookie = browser.driver.get_cookie("sessionid")
    opened(browser, f"{origin}/accounts/login/")
    browser.driver.add_cookie({"name": "sessionid", "value": cookie["value"]})
    sample.mark_log()
    opened(browser, f"{origin}/react/")
    browser.write("message", "refused")
    browser.press("#react form button")
    browser.until(lambda: "CSRF_TRUSTED_ORIGINS" in browser.text("[data-status]"), "the form says so")
    messages = severe(browser)
    browser.until(lambda: messages.extend(severe(browser)) or "ALLOWED_ORIGINS" in "".join(messages), "the console")
    assert any("CSRF_TRUSTED_ORIGINS" in message for message in messages)
    log = sample.log_since_mark()
    assert f'the page is of "{origin}"' in log and "ALLOWED_ORIGINS" in log and "changeOrigin" in log
    assert f"The page is of {origin}" in log and "CSRF_TRUSTED_ORIGINS" in log
    browser.driver.get("about:blank")  # it would go on trying
    browser.console()

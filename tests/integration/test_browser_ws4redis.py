"""ws4redis's own example pages in a real browser, on a site without ``"ws4redis"`` in ``INSTALLED_APPS``."""

import pytest

from testbed.cutting_proxy import CuttingProxy
from tests.integration.test_browser import browser, clean, other, started_browsers, whole_browser

__all__ = ["browser", "clean", "other", "started_browsers", "whole_browser"]  # fixtures


@pytest.fixture(scope="module")
def sample(site):
    """The site that tests share: two workers."""
    return site


def shows(browser, *lines):
    """Wait until the billboard has exactly these lines."""
    browser.until(lambda: browser.text("#billboard").split("\n") == list(lines), f"{lines} on the billboard")


def calls(browser):
    return browser.driver.execute_script("return calls")


def called(browser, *expected):
    """Wait until these were the latest calls of the page's functions."""
    expected = [list(call) for call in expected]
    browser.until(lambda: calls(browser)[-len(expected) :] == expected, f"{expected}")


def send(browser, text):
    browser.driver.execute_script("client.send_message(arguments[0])", text)


# --- the example pages ------------------------------------------------------------------------------------------------


def test_broadcast_chat(browser, other):
    browser.open("/ws4redis/chat/")
    shows(browser, "Hello everybody")
    other.open("/ws4redis/chat/")
    shows(other, "Hello everybody")
    shows(browser, "Hello everybody", "Hello everybody")
    browser.find("#text_message").send_keys("from the socket")
    browser.press("#send_message")
    shows(other, "Hello everybody", "from the socket")
    shows(browser, "Hello everybody", "Hello everybody", "from the socket")  # the echo
    assert browser.driver.execute_script("return typeof jQuery") == "function"


@pytest.mark.parametrize(("page", "recipient"), [("userchat", "mary"), ("groupchat", "chatters")])
def test_chat_of_users_and_groups(browser, other, page, recipient):
    browser.sign_in("john")
    other.sign_in("mary")
    for each in (browser, other):
        each.open(f"/ws4redis/{page}/")
    select = browser.find(f"select [value={recipient}]")
    select.click()
    browser.find("#text_message").send_keys("for mary")
    browser.press("#send_message")
    shows(other, "for mary")  # perhaps as the message that is retained
    shows(browser, *([""] if page == "userchat" else ["for mary"]))


# --- every option, without jQuery -------------------------------------------------------------------------------------


def test_a_page_without_jquery_uses_every_option_and_reconnects(browser, sample, facility):
    with CuttingProxy(sample.port) as proxy:
        browser.driver.get(f"http://127.0.0.1:{proxy.port}/ws4redis/bare/?facility={facility}")
        called(browser, ["connecting"], ["state", 0, True], ["connected"])
        assert browser.driver.execute_script("return [client.is_connected(), typeof jQuery]") == [True, "undefined"]
        send(browser, "before")
        called(browser, ["receive_message", "before"])
        proxy.cut()
        called(browser, ["disconnected", 1006], ["connecting"], ["connected"], ["receive_message", "before"])
        send(browser, "after")
        called(browser, ["receive_message", "after"])
        browser.driver.execute_script("client.close()")
        called(browser, ["disconnected", 1005])
        states = "return ['get_state', 'is_closed', 'is_closing', 'is_connected'].map((name) => client[name]())"
        assert browser.driver.execute_script(states) == [3, True, False, False]


def test_signing_out_ends_it(browser, facility):
    browser.sign_in("john")
    browser.open(f"/ws4redis/bare/?facility={facility}")
    called(browser, ["connected"])
    browser.sign_out_in_another_tab()
    called(browser, ["disconnected", 4001])
    browser.driver.execute_script("window.dispatchEvent(new Event('online'))")
    assert browser.driver.execute_script("return client.get_state()") == 3
    assert calls(browser)[-1] == ["disconnected", 4001]


def test_what_is_closed_at_once_opens_no_socket_and_leaves_no_warning(browser, facility):
    browser.open(f"/ws4redis/bare/?facility={facility}")
    called(browser, ["connected"])
    closed = """
        const [uri, done] = arguments;
        WS4Redis({ uri, disconnected: ({ code, type, wasClean }) => done([code, type, wasClean]) }).close();
    """
    uri = f"ws://{browser.site.host}/ws/{facility}"
    assert browser.driver.execute_async_script(closed, uri) == [1006, "close", False]


def test_a_page_that_the_browser_has_kept_connects_again(whole_browser, facility):
    browser = whole_browser
    browser.open(f"/ws4redis/bare/?facility={facility}")
    called(browser, ["connected"])
    browser.driver.execute_script("addEventListener('pageshow', ({ persisted }) => calls.push(['kept', persisted]))")
    browser.open("/echo/")
    browser.connected()
    browser.driver.back()
    called(browser, ["disconnected", 1006], ["connecting"], ["kept", True], ["connected"])
    browser.console()  # Chromium's note that it has closed the socket of a page that it keeps

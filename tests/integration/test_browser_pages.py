"""The start page, and the pages that talk to consumers, in a real browser: ``/``, ``/random/`` and ``/echo/``."""

import os
import re
import signal
from itertools import groupby

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from testbed.processes import wait_until
from tests.integration.test_browser import PHONE, browser, clean, other, started_browsers, stopped

__all__ = ["browser", "clean", "other", "started_browsers"]  # fixtures; `sample` below is what they open

PAGES = ["/random/", "/echo/"]
LOOPS = {"ROOT_URLCONF": "tests.integration.sites.loops"}
RECORD = """
window.numbers = [];
window.states = [];
const number = document.querySelector("[data-number]");
const line = document.querySelector("[data-line]");
new MutationObserver(() => numbers.push(number.textContent)).observe(number, { childList: true });
new MutationObserver(() => states.push(line.dataset.state)).observe(line, { attributeFilter: ["data-state"] });
"""
POINTS = """
const plot = document.querySelector("[data-plot]");
const { width, height } = plot.getBoundingClientRect();
return [...plot.querySelectorAll("circle")].map(({ cx, cy }) => [cx.baseVal.value / width, cy.baseVal.value / height]);
"""


@pytest.fixture(scope="module")
def sample(shared_serve):
    """One worker, which tells what runs in it, with the policy that the sample ships."""
    return shared_serve(settings={"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels", **LOOPS})


def loops(site, count):
    """Wait until so many loops run on the server."""
    wait_until(lambda: site.request("GET", "/test/loops/").json() == count, what=f"{count} loops")


def opened(browser):
    browser.open("/random/")
    browser.until(lambda: browser.find("[data-toggle]").is_displayed(), "the page is ready")
    browser.driver.execute_script(RECORD)


def started(browser):
    opened(browser)
    browser.press("[data-toggle]")
    arrives(browser, 1)


def numbers(browser):
    return browser.driver.execute_script("return numbers")


def states(browser):
    return browser.driver.execute_script("return states")


def arrives(browser, count):
    """Wait until so many more numbers have come."""
    before = len(numbers(browser))
    browser.until(lambda: len(numbers(browser)) >= before + count, "numbers")


def shows(browser, state, action):
    """Wait until the page shows this state, and what its button does next."""
    browser.until(
        lambda: (browser.text("[data-state-text]"), browser.text("[data-toggle]")) == (state, action),
        f"{state}, and {action}",
    )


# --- the start page ---------------------------------------------------------------------------------------------------

LIGHTS = """
window.lit = [];
window.dots = [];
new MutationObserver((changes) => {
  for (const { target, addedNodes } of changes) {
    if ("lit" in target.dataset && !addedNodes.length) lit.push(target.dataset.station);
    if (addedNodes[0]?.className === "dot") dots.push(target.closest("[data-station]").dataset.station);
  }
}).observe(document.querySelector("[data-stations]"), {
  subtree: true, attributeFilter: ["data-lit"], childList: true,
});
"""
STATIONS = ["view", "redis", "worker", "page"]
PLUG = "button[data-plug]"


def at_the_start(browser):
    """Open the start page as john, with its socket."""
    browser.sign_in("john")
    browser.open("/")
    browser.connected()


def tells(browser, beginning):
    browser.until(lambda: browser.text("[data-told]").startswith(beginning), f"the page tells: {beginning}")


def arrived(browser):
    return [item.text for item in browser.driver.find_elements(By.CSS_SELECTOR, "[data-arrivals] li")]


def kept(browser):
    """The number of messages that Redis keeps, as the page says."""
    return int((re.findall(r"^keeps (\d+) for you$", browser.text("[data-waiting]")) or [0])[0])


def keeps(browser, count):
    """Wait until it keeps so many messages, or more: while the plug is out there is another one each second."""
    browser.until(lambda: kept(browser) >= count, f"Redis keeps {count}")


def measured(browser, name, within="[data-stations]"):
    number, unit = browser.text(f"{within} [data-value={name}]").split()
    assert unit == "ms"
    return float(number)


def test_one_click_signs_in_and_the_next_one_shows_the_way_of_a_message(browser):
    browser.open("/")
    assert browser.lines() == []
    browser.press("main form button")
    browser.until(lambda: "john" in browser.text(".account"), "signed in")
    browser.site.session_keys.add(browser.driver.get_cookie("sessionid")["value"])
    browser.connected()
    browser.driver.execute_script(LIGHTS)
    browser.press("[data-send] button")
    tells(browser, "Message 1 arrived after ")
    browser.until(lambda: browser.driver.execute_script("return lit") == STATIONS, "the stations are lit, one by one")
    assert browser.driver.execute_script("return dots") == []  # this browser wants nothing to move
    browser.until(lambda: browser.text("[data-stations] [data-value=view]"), "the answer of the view")
    view, redis, whole = (measured(browser, name) for name in ("view", "redis", "page"))
    rest = measured(browser, "rest", ".clocks")
    assert min(view, redis, rest) > 0
    # format.js rounds each: a page shows a whole number of milliseconds from 100 on
    assert abs(view + redis + rest - whole) <= sum(0.5 if part >= 100 else 0.05 for part in (view, redis, rest, whole))
    assert browser.text("[data-told]") == f"Message 1 arrived after {browser.text('[data-value=page]')}."
    assert arrived(browser) == [f"1: {browser.text('[data-value=page]')}"]
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] rect")) == 3
    browser.until(lambda: not browser.driver.find_elements(By.CSS_SELECTOR, "[data-lit]"), "the lights are out again")


def test_dots_run_along_the_wires_where_things_may_move(browser):
    at_the_start(browser)
    motion = [{"name": "prefers-reduced-motion", "value": "no-preference"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": motion})
    browser.driver.execute_script(LIGHTS)
    browser.press("[data-send] button")
    browser.until(lambda: browser.driver.execute_script("return lit") == STATIONS, "the stations are lit, one by one")
    assert browser.driver.execute_script("return dots") == STATIONS[1:]
    browser.until(lambda: not browser.driver.find_elements(By.CSS_SELECTOR, ".dot"), "they are gone")


def test_the_whole_way_is_measured_from_the_click_and_the_views_part_by_the_server(browser):
    at_the_start(browser)
    browser.driver.execute_script("""
        const { fetch } = window;
        window.fetch = async (...all) => {
            await new Promise((resolve) => setTimeout(resolve, 600));
            return fetch(...all);
        };""")
    browser.press("[data-send] button")
    tells(browser, "Message 1 arrived after ")
    browser.until(lambda: browser.text("[data-stations] [data-value=view]"), "the answer of the view")
    assert measured(browser, "page") >= 600
    assert measured(browser, "rest", ".clocks") >= 600


def test_a_series_fills_the_plot(browser):
    at_the_start(browser)
    browser.press("[data-series]")
    assert browser.find("[data-series]").get_attribute("aria-disabled") == "true"
    tells(browser, "20 messages arrived: median ")
    assert browser.find("[data-series]").get_attribute("aria-disabled") is None
    browser.until(
        lambda: len(browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] [data-part=view]")) == 20, "20 columns"
    )
    assert "The latest 20 round trips: fastest " in browser.text("[data-summary]")
    assert [text.split(":")[0] for text in arrived(browser)] == [str(number) for number in range(9, 21)]
    labels = [label.text for label in browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] text")]
    assert labels[3:] == ["1", "6", "11", "16"]


def test_what_is_published_while_the_plug_is_out_arrives_when_it_is_in_again(browser):
    at_the_start(browser)
    browser.press("[data-send] button")
    tells(browser, "Message 1 arrived")
    before = arrived(browser)
    browser.press(PLUG)
    tells(browser, "The socket of this page is closed.")
    assert (browser.text("[data-state-text]"), browser.text(PLUG)) == ("unplugged", "Plug in again")
    assert browser.text("[data-value=worker]") == "no socket of yours"
    assert browser.find("[data-series]").get_attribute("aria-disabled") == "true"
    browser.driver.execute_script(LIGHTS)
    keeps(browser, 2)
    assert set(browser.driver.execute_script("return lit")) == {"view", "redis"}
    browser.site.publish("home", "from somebody else", users=["john"])
    browser.press("[data-send] button")
    keeps(browser, kept(browser) + 2)  # it does not know of the other one
    assert arrived(browser) == before
    browser.press(PLUG)
    browser.until(lambda: "missed messages were recovered" in browser.text("[data-told]"), "what was missed")
    recovered = arrived(browser)[1:]
    own = [text for text in recovered if text != "from another window recovered"]
    assert len(own) == len(recovered) - 1 >= 4
    assert own == [f"{number} recovered" for number in range(2, 2 + len(own))]
    assert recovered[-1] == own[-1], "what somebody else has published stands where it was published"
    order = "in the order in which they were published."
    assert browser.text("[data-told]") == f"{len(recovered)} missed messages were recovered, {order}"
    assert (browser.text("[data-state-text]"), browser.text(PLUG)) == ("connected", "Pull the plug")
    assert kept(browser) == 0
    browser.press("[data-send] button")
    tells(browser, f"Message {2 + len(own)} arrived after ")
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] [data-part=rest]")) == 2


def test_the_page_says_what_cannot_be_recovered(browser, redis_client):
    at_the_start(browser)
    browser.press(PLUG)
    keeps(browser, 2)
    for key in redis_client.scan_iter("*user:john:home*"):
        redis_client.delete(key)
    browser.press(PLUG)
    tells(browser, "The page is connected again. Missed messages could not be recovered: ")
    assert arrived(browser) == []
    browser.press("[data-send] button")
    tells(browser, "Message ")


def test_a_message_that_the_view_does_not_take_is_told(browser):
    at_the_start(browser)
    browser.driver.execute_script("window.fetch = () => Promise.reject(new TypeError('no network'))")
    browser.press("[data-send] button")
    tells(browser, "The server cannot be reached. Try again.")
    browser.press("[data-series]")
    tells(browser, "The server cannot be reached. Try again.")
    browser.until(lambda: browser.find("[data-series]").get_attribute("aria-disabled") is None, "the series has ended")
    answer = "async () => new Response(JSON.stringify({ ok: false, errors: { __all__: ['Sign in first.'] } }))"
    browser.driver.execute_script(f"window.fetch = {answer}")
    browser.press("[data-send] button")
    tells(browser, "Sign in first.")
    browser.driver.execute_script("window.fetch = async () => new Response('<!doctype html>', { status: 502 })")
    browser.press("[data-send] button")
    tells(browser, "The server did not accept the message (error 502). Try again.")


def test_the_start_page_of_a_user_who_has_signed_out_elsewhere(browser):
    at_the_start(browser)
    browser.sign_out_in_another_tab()
    browser.until(lambda: browser.find("main [data-signed-out]").is_displayed(), "the page says so")
    browser.driver.execute_script("window.fetch = () => { window.posted = true }")
    for button in browser.driver.find_elements(By.CSS_SELECTOR, "[data-send] button"):
        assert button.get_attribute("aria-disabled") == "true"
        button.click()
    assert browser.text(PLUG) == "Pull the plug"
    assert not browser.driver.execute_script("return window.posted")


def test_the_start_page_by_keyboard_alone(browser):
    at_the_start(browser)
    browser.tab_to("[data-send] button")
    browser.keys(Keys.ENTER)
    tells(browser, "Message 1 arrived")
    browser.tab_to(PLUG)
    browser.keys(Keys.SPACE)
    keeps(browser, 1)
    assert browser.has_focus(PLUG)
    browser.keys(Keys.ENTER)
    browser.until(lambda: "recovered" in browser.text("[data-told]"), "what was missed")
    assert browser.has_focus(PLUG)


def test_the_start_page_without_scripts_takes_a_message(browser):
    browser.scripts(False)
    browser.open("/")
    browser.press("main form button")
    browser.until(lambda: "john" in browser.text(".account"), "signed in")
    browser.site.session_keys.add(browser.driver.get_cookie("sessionid")["value"])
    shown = [button.text for button in browser.driver.find_elements(By.CSS_SELECTOR, "[data-send] button")]
    assert shown == ["Send a message", "", ""]
    browser.press("[data-send] button")
    browser.until(lambda: browser.text(".notices") == "Sent.", "the page says so")


def test_the_start_page_in_use(browser):
    at_the_start(browser)
    browser.press("[data-send] button")
    tells(browser, "Message 1 arrived")
    browser.press(PLUG)
    keeps(browser, 1)
    browser.press(".pages summary")
    assert browser.hard_to_read() == [], "unplugged, with an open menu"
    browser.keys(Keys.ESCAPE)
    browser.press(PLUG)
    browser.until(lambda: "recovered" in browser.text("[data-told]"), "what was missed")
    for width in (PHONE, 768, 1280):
        browser.width(width)
        assert browser.hard_to_read() == [], "recovered"
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_start_shows_numbers_and_stop_ends_them(browser):
    opened(browser)
    shows(browser, "stopped", "Start")
    assert browser.text("[data-number]") == ""
    loops(browser.site, 0)
    browser.press("[data-toggle]")
    shows(browser, "connected", "Stop")
    arrives(browser, 4)
    loops(browser.site, 1)
    assert {int(number) for number in numbers(browser)} <= set(range(101))
    browser.press("[data-toggle]")
    shows(browser, "stopped", "Start")
    loops(browser.site, 0)
    come = numbers(browser)
    assert browser.text("[data-number]") == come[-1]
    least, most = min(map(int, come)), max(map(int, come))
    summary = f"Received in the last minute: {len(come)}; minimum {least}, maximum {most}"
    assert browser.text("[data-summary]") == summary
    browser.press("[data-toggle]")
    arrives(browser, 1)
    assert numbers(browser)[: len(come)] == come  # nothing had come in between
    once = ["connecting", "connected"]
    assert states(browser) == [*once, "stopped", *once]


def test_the_plot_shows_what_has_come(browser):
    started(browser)
    arrives(browser, 3)
    browser.press("[data-toggle]")
    points, come = browser.driver.execute_script(POINTS), [int(number) for number in numbers(browser)]
    assert len(points) == len(come) >= 4
    across, down = zip(*points, strict=True)
    assert list(across) == sorted(set(across))  # from left to right
    assert 0 < across[0] < across[-1] < 1
    assert all(0 < each < 1 for each in down)
    drawn = list(zip(come, down, strict=True))
    assert all((a > b) == (y < z) for a, y in drawn for b, z in drawn), "the larger, the higher"
    labels = [label.text for label in browser.driver.find_elements(By.CSS_SELECTOR, "[data-plot] text")]
    assert labels == ["0", "25", "50", "75", "100", "60 s", "45 s", "30 s", "15 s", "last"]


def test_two_tabs_have_numbers_of_their_own(browser):
    started(browser)
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    started(browser)
    loops(browser.site, 2)
    arrives(browser, 5)
    mine = numbers(browser)
    browser.press("[data-toggle]")
    loops(browser.site, 1)
    browser.driver.switch_to.window(first)
    assert "".join(mine) not in "".join(numbers(browser))
    arrives(browser, 2)
    shows(browser, "connected", "Stop")


def closes_the_tab(browser):
    browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[0])


def goes_elsewhere(browser):
    browser.open("/")


@pytest.mark.parametrize("leave", [closes_the_tab, goes_elsewhere])
def test_whoever_leaves_ends_the_loop_on_the_server(browser, leave):
    browser.driver.switch_to.new_window("tab")
    started(browser)
    loops(browser.site, 1)
    leave(browser)
    loops(browser.site, 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=["reload", "crash"])
def test_the_numbers_go_on_when_the_worker_was_gone(serve, browser, number):
    site = serve(settings=LOOPS)
    browser.reset(site)
    started(browser)
    (worker,) = site.workers()
    os.kill(worker, number)
    way = ["connecting", "connected", "reconnecting", "connected"]
    # The third attempt may come after 14 s, where it takes long until the worker is back.
    wait_until(lambda: [state for state, _ in groupby(states(browser))] == way, 60.0, "the line that comes back")
    arrives(browser, 1)
    assert site.workers() != [worker]
    assert len(browser.driver.execute_script(POINTS)) == len(numbers(browser))  # what came before is still there
    loops(site, 1)
    browser.console()  # Chromium's notes about attempts to connect


def test_a_line_on_which_nothing_comes_any_more_is_given_up(serve, browser):
    site = serve(settings=LOOPS)
    browser.reset(site)
    started(browser)
    (worker,) = site.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_until(lambda: states(browser)[-1] == "reconnecting", 60.0, "giving up")
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: states(browser)[-1] == "connected", 60.0, "the line that comes back")
    loops(site, 1)
    browser.console()  # Chromium's note, if an attempt was cut


def test_stop_ends_the_attempts_to_reconnect(serve, browser):
    site = serve(settings=LOOPS)
    browser.reset(site)
    started(browser)
    stopped(site)
    browser.until(lambda: browser.text("[data-state-text]").startswith("reconnecting"), "the page has noticed")
    assert browser.text("[data-toggle]") == "Stop"
    browser.press("[data-toggle]")
    shows(browser, "stopped", "Start")
    assert browser.text("[data-countdown]") == ""
    site.start()
    browser.driver.execute_script("window.dispatchEvent(new Event('online'))")
    loops(site, 0)
    browser.press("[data-toggle]")
    arrives(browser, 1)
    browser.console()


def test_signing_out_elsewhere_ends_the_numbers(browser):
    browser.sign_in("john")
    started(browser)
    browser.sign_out_in_another_tab()
    shows(browser, "offline (signed out)", "Start")
    assert "Signed out" in browser.text(".account")
    loops(browser.site, 0)
    browser.press("[data-toggle]")  # as a visitor
    shows(browser, "connected", "Stop")


def test_starting_and_stopping_by_keyboard_alone(browser):
    opened(browser)
    browser.tab_to("[data-toggle]")
    browser.keys(Keys.SPACE)
    arrives(browser, 1)
    assert browser.has_focus("[data-toggle]")
    browser.keys(Keys.ENTER)
    shows(browser, "stopped", "Start")
    assert browser.has_focus("[data-toggle]")
    loops(browser.site, 0)


def test_screen_readers_are_told_the_state_and_not_each_number(browser):
    started(browser)
    told = "return [...document.querySelectorAll('[role=status], [role=log], [role=alert], [aria-live], output')]"
    assert browser.driver.execute_script(f"{told}.map(({{ textContent }}) => textContent)") == ["connected"]


# --- echo -------------------------------------------------------------------------------------------------------------


def returned(browser):
    """What has come back, the newest first."""
    return browser.driver.execute_script(
        "return Array.from(document.querySelectorAll('[data-feed] li'), (item) => item.textContent)"
    )


def test_the_echo_by_keyboard_alone(browser):
    browser.open("/echo/")
    browser.connected()
    assert "Nothing has come back yet." in browser.text("main")
    browser.tab_to("[name=message]")
    browser.keys("Grüße <b>an mich</b>", Keys.ENTER)
    browser.until(lambda: returned(browser) == ["Grüße <b>an mich</b>"], "the echo")
    assert "Nothing has come back yet." not in browser.text("main")
    assert browser.has_focus("[name=message]")
    browser.keys(Keys.ENTER)  # nothing to send
    browser.keys("the second", Keys.TAB)
    assert browser.has_focus("main form button")
    browser.keys(Keys.SPACE)
    browser.until(lambda: returned(browser) == ["the second", "Grüße <b>an mich</b>"], "the echo")
    assert browser.find("[name=message]").get_property("value") == ""


def test_only_the_sender_gets_the_echo(browser, other):
    for each, text in ((browser, "mine"), (other, "yours")):
        each.open("/echo/")
        each.connected()
        each.send(text)
    for each, text in ((browser, "mine"), (other, "yours")):
        each.until(lambda each=each: returned(each), "the echo")
        assert returned(each) == [text]


def test_the_echo_says_when_its_connection_has_ended(serve, browser):
    site = serve()
    browser.reset(site)
    browser.open("/echo/")
    browser.connected()
    assert not browser.find("[data-offline]").is_displayed()
    stopped(site)
    browser.until(lambda: browser.find("[data-offline]").is_displayed(), "the page says so")
    assert browser.text("[data-state-text]") == "offline"
    browser.send("do not lose me")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert browser.hard_to_read() == []
    site.start()
    browser.press("[data-offline] a")
    browser.connected()


# --- both -------------------------------------------------------------------------------------------------------------


def in_use(browser, page):
    """Open a page and have something on it."""
    if page == "/random/":
        started(browser)
    else:
        browser.open(page)
        browser.connected()
        browser.send("hello" * 100)
        browser.until(lambda: returned(browser), "the echo")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_on_a_phone(browser, page):
    browser.width(PHONE)
    in_use(browser, page)
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") == PHONE


@pytest.mark.parametrize("page", PAGES)
def test_texts_stand_out_from_their_background(browser, page):
    in_use(browser, page)
    assert browser.hard_to_read() == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_without_scripts_says_what_is_missing(browser, page):
    browser.scripts(False)
    browser.open(page)
    assert "This page needs JavaScript" in browser.text("main")
    assert not [
        button for button in browser.driver.find_elements(By.CSS_SELECTOR, "main button") if button.is_displayed()
    ]


# Opens one menu after the other, and returns where they are: of all their parts the left and the right edge.
OPEN_MENUS = """
return [...document.querySelectorAll(".pages details")].map((group) => {
  group.querySelector("summary").click();
  const shown = [...group.querySelectorAll("summary, .menu-panel, a")].map((each) => each.getBoundingClientRect());
  return {
    top: group.getBoundingClientRect().top,
    boxes: shown.map(({ left, right }) => [left, right]),
    wide: document.documentElement.scrollWidth,
  };
});
"""


def test_the_navigation_fits_into_every_width(browser):
    browser.sign_in("admin")
    browser.open("/random/")
    for width in (320, PHONE, 767, 768, 1024, 1280, 1920):
        browser.width(width)
        places = browser.driver.execute_script(OPEN_MENUS)
        assert len({group["top"] for group in places}) == 1, "they stand in a row"
        for group in places:
            assert len(group["boxes"]) > 2
            for left, right in group["boxes"]:
                assert 0 <= left < right <= width, width
            assert group["wide"] <= width

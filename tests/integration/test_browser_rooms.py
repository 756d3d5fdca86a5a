"""The chat rooms in real browsers: two people and a guest on a site with two workers."""

import json
import os
import re
import signal
import threading
import time
import uuid
from urllib.parse import urlencode

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from testbed.processes import wait_until
from tests.integration.test_browser import (
    DESKTOP,
    PHONE,
    browser,
    clean,
    other,
    started_browsers,
    stopped,
    whole_browser,
)

__all__ = ["browser", "clean", "other", "started_browsers", "whole_browser"]  # fixtures

SHIFT_ENTER = Keys.SHIFT + Keys.ENTER + Keys.SHIFT
SOCKETS_OFF = """
const { WebSocket } = window;
window.WebSocket = class extends WebSocket {
    constructor(url, ...more) {
        super(window.socketsOn ?? url.replace("/ws/", "/nowhere/"), ...more);
    }
};
"""
LOSE_A_REPLY = """
const { fetch } = window;
window.fetch = async (...order) => {
    window.fetch = fetch;
    await fetch(...order);
    throw new TypeError("lost");
};
"""
# Nor is anything to be read until found() is called: what is there after all takes the error away again.
LOSE_A_REPLY_AND_ALL_THAT_IS_READ = """
let lost = false;
const { fetch } = window;
window.found = () => { window.fetch = fetch; };
window.fetch = async (...order) => {
    const posts = order[1]?.method === "POST";
    const reply = await fetch(...order);
    if (posts && lost) return reply;
    lost ||= posts;
    throw new TypeError("lost");
};
"""
FROM_BOTTOM = "return -document.querySelector('[data-scroll]').scrollTop"


@pytest.fixture(scope="module")
def sample(shared_serve):
    """Two workers, with the policy that the sample ships."""
    return shared_serve(processes=2, settings={"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels"})


@pytest.fixture
def room():
    """The name of a room that only this test uses."""
    return f"room-{uuid.uuid4().hex[:12]}"


def enter(browser, room):
    browser.open(f"/rooms/{room}/")
    in_line(browser)


def in_line(browser):
    """Wait until the page's line is connected."""
    line = "[data-line][data-state=connected]"
    browser.until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, line), "the line is connected")


def comes_back(browser):
    """Have the page connect at once: its own pause may be half a minute."""
    browser.driver.execute_script("window.dispatchEvent(new Event('online'))")
    in_line(browser)


def enter_without_sockets(browser, room):
    script = {"source": SOCKETS_OFF}
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    browser.open(f"/rooms/{room}/")
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    line = "[data-line][data-state=reconnecting]"
    browser.until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, line), "no line")


def say(browser, *keys):
    browser.find("[name=message]").send_keys(*keys, Keys.ENTER)


def post(site, cookies, room, text):
    """Write to a room as a page without scripts does."""
    token = re.search("csrftoken=([^;]+)", cookies)[1]
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-CSRFToken": token}
    answer = site.request("POST", f"/rooms/{room}/", headers, urlencode({"message": text}), cookies)
    assert answer.status == 302, answer.text


def fill(site, room, count):
    """Let mary have written a number of messages in the room, the last one just now."""
    code = f"""
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from chat.models import Message, Room
room, mary = Room.objects.create(slug={room!r}, last_number={count}), User.objects.get(username="mary")
now = timezone.now()
Message.objects.bulk_create(
    Message(room=room, number=n, author=mary, text=f"message {{n}}", sent_at=now - timedelta(hours={count} - n))
    for n in range(1, {count} + 1)
)
"""
    site.manage("shell", "-c", code)


def texts(browser):
    script = "return [...document.querySelectorAll('[data-talk] .message-text')].map((text) => text.textContent)"
    return browser.driver.execute_script(script)


def shows(browser, *expected):
    """Wait until exactly these texts are shown, in this order."""
    try:
        browser.until(lambda: texts(browser) == list(expected), "messages")
    except Exception:
        raise AssertionError(f"expected {list(expected)}, the page shows {texts(browser)}") from None


def after_divider(browser):
    """The text of the message below "New"; None if nothing is marked as new."""
    script = "return document.querySelector('[data-new] + .said .message-text')?.textContent ?? null"
    return browser.driver.execute_script(script)


def people(browser):
    return [element.text for element in browser.driver.find_elements(By.CSS_SELECTOR, ".person-name")]


def unread(browser, room):
    """What the list of rooms tells of a room; None: nothing is unread."""
    found = browser.driver.find_elements(By.CSS_SELECTOR, f".room-name:has([href='/rooms/{room}/']) .count")
    return found[0].text.split()[0] if found else None


# --- writing ----------------------------------------------------------------------------------------------------------


def test_two_people_talk(browser, other, room):
    browser.sign_in("john")
    other.sign_in("mary")
    for each in (browser, other):
        enter(each, room)
    assert "Write the first message." in browser.text(".talk")
    say(browser, "Grüße an <b>mary</b>")
    shows(other, "Grüße an <b>mary</b>")
    shows(browser, "Grüße an <b>mary</b>")
    assert browser.find("[name=message]").get_property("value") == ""
    assert browser.has_focus("[name=message]")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "[data-pending] li")
    assert not browser.find("[data-nothing]").is_displayed()
    say(other, "two", SHIFT_ENTER, "lines")
    shows(browser, "Grüße an <b>mary</b>", "two\nlines")
    own = [element.text for element in browser.driver.find_elements(By.CSS_SELECTOR, ".said.own .sender")]
    assert own == ["john"]
    assert other.text(".said:not(.own) .sender") == "john"


def test_messages_that_are_written_one_right_after_the_other_keep_their_order(browser, other, room):
    browser.sign_in("john")
    for each in (browser, other):
        enter(each, room)
    expected = [str(number) for number in range(15)]
    browser.find("[name=message]").send_keys("".join(text + Keys.ENTER for text in expected))
    shows(other, *expected)
    shows(browser, *expected)
    browser.open(f"/rooms/{room}/")
    shows(browser, *expected)


def test_a_message_without_scripts(browser, other, room):
    enter(other, room)
    browser.scripts(False)
    browser.sign_in("john")
    browser.open(f"/rooms/{room}/")
    browser.write("message", "as a plain form")
    browser.press(".composer button")
    shows(other, "as a plain form")
    browser.until(lambda: browser.text(".message-text") == "as a plain form", "the page shows it")
    browser.press(".composer button")
    assert browser.driver.execute_script("return document.querySelector('[name=message]').validity.valueMissing")
    long = "a long text " * 200
    browser.driver.execute_script("document.querySelector('[name=message]').value = arguments[0]", long)
    browser.press(".composer button")
    browser.until(lambda: "this one has 2399" in browser.text("#id_message_error"), "an error at the field")
    assert browser.find("[name=message]").get_property("value").strip() == long.strip()
    browser.console()  # Chromium's own note about the reply


def test_the_end_of_a_talk_is_seen_first_without_scripts_too(browser, sample, room):
    fill(sample, room, 60)
    browser.scripts(False)
    browser.open(f"/rooms/{room}/")
    last = browser.driver.find_elements(By.CSS_SELECTOR, ".said")[-1].rect
    box = browser.find("[data-scroll]").rect
    assert box["y"] <= last["y"] < last["y"] + last["height"] <= box["y"] + box["height"]
    browser.tab_to("[data-earlier]")
    browser.keys(Keys.ENTER)
    browser.until(lambda: "before=11" in browser.driver.current_url, "the page before")
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".said")) == 10


def test_a_message_while_the_socket_is_off_goes_as_a_form_and_what_others_wrote_comes_with_it(browser, room, sample):
    browser.sign_in("john")
    enter_without_sockets(browser, room)
    browser.driver.execute_script("window.isStillTheSamePage = true")
    mary = sample.login("mary")
    post(sample, mary, room, "of mary")
    say(browser, "of john")
    shows(browser, "of mary", "of john")
    assert browser.find("[name=message]").get_property("value") == ""
    assert browser.driver.execute_script("return window.isStillTheSamePage")
    # A line that begins too early: what the page has shown is not shown again.
    browser.driver.execute_script("window.socketsOn = arguments[0]", sample.ws_url(f"rooms/{room}/?after=0"))
    comes_back(browser)
    post(sample, mary, room, "afterwards")
    shows(browser, "of mary", "of john", "afterwards")
    browser.console()  # Chromium's notes about the sockets that were blocked


def test_what_others_write_is_looked_up_while_no_socket_can_be_opened(browser, room, sample):
    enter_without_sockets(browser, room)
    for shown in (["one"], ["one", "two"]):
        post(sample, sample.login("mary"), room, shown[-1])
        browser.driver.execute_script("window.dispatchEvent(new Event('online'))")  # the next attempt, at once
        shows(browser, *shown)
    browser.console()  # Chromium's notes about the sockets that were blocked


def test_a_message_that_cannot_be_sent_stays_and_is_stored_once(serve, browser, room):
    site = serve(processes=1)
    browser.reset(site)
    browser.sign_in("john")
    enter(browser, room)
    stopped(site)
    say(browser, "do not lose me")
    browser.until(lambda: "The server cannot be reached." in browser.text("[data-errors]"), "an error at the field")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert browser.has_focus("[name=message][aria-invalid=true][aria-describedby~=id_message_error]")
    assert texts(browser) == []
    site.start()
    comes_back(browser)
    say(browser)
    shows(browser, "do not lose me")
    assert browser.find("[name=message]").get_property("value") == ""
    assert browser.text("[data-errors]") == ""
    browser.console()


def test_a_message_whose_answer_is_lost_is_not_written_twice(browser, room):
    browser.sign_in("john")
    enter(browser, room)
    # The line breaks when the message has left, and the reply to the form gets lost as well.
    browser.driver.execute_script("""
        const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (data) {
            send.call(this, data);
            if (!data.includes('"message"')) return;
            WebSocket.prototype.send = send;
            this.onmessage = null;
            setTimeout(() => this.onclose({ code: 1006, reason: "" }), 300);
        };
    """)
    browser.driver.execute_script(LOSE_A_REPLY)
    say(browser, "once")
    shows(browser, "once")
    browser.until(lambda: browser.find("[name=message]").get_property("value") == "", "the field is empty")
    say(browser, "twice")
    shows(browser, "once", "twice")
    browser.open(f"/rooms/{room}/")
    shows(browser, "once", "twice")


def test_a_message_whose_reply_is_lost_can_be_sent_again_and_is_not_written_twice(browser, room):
    browser.sign_in("john")
    enter_without_sockets(browser, room)
    browser.driver.execute_script(LOSE_A_REPLY_AND_ALL_THAT_IS_READ)
    say(browser, "once")
    browser.until(lambda: "The server cannot be reached." in browser.text("[data-errors]"), "an error at the field")
    assert browser.find("[name=message]").get_property("value") == "once"
    say(browser)
    browser.driver.execute_script("window.found()")
    shows(browser, "once")
    say(browser, "twice")
    shows(browser, "once", "twice")
    browser.console()  # Chromium's notes about the sockets


def test_a_text_that_is_too_long(browser, room):
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("document.querySelector('[name=message]').value = '🙂'.repeat(1900)")
    browser.write("message", "!")
    assert browser.text("[data-counter]") == "99 left"
    browser.driver.execute_script("document.querySelector('[name=message]').value = '🙂'.repeat(2000)")
    browser.write("message", "!")
    assert browser.text("[data-counter]") == "1 too many"
    say(browser)
    assert browser.text("[data-errors]") == "A message may have 2000 characters; this one has 2001."
    assert browser.has_focus("[name=message][aria-invalid=true][aria-describedby~=id_message_error]")
    assert browser.hard_to_read() == []
    browser.find("[name=message]").send_keys(Keys.BACKSPACE)
    say(browser)
    shows(browser, "🙂" * 2000)
    assert browser.text("[data-errors]") == ""
    say(browser, "  ")
    assert browser.text("[data-errors]") == "Write something first."


def test_an_error_that_only_the_server_finds_brings_the_text_back(browser, room):
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("document.querySelector('[name=message]').value = 'nul \\0'")
    say(browser)
    browser.until(lambda: "Null characters are not allowed." in browser.text("[data-errors]"), "an error")
    assert browser.find("[name=message]").get_property("value") == "nul \0"
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "[data-pending] li")


# --- who is there -----------------------------------------------------------------------------------------------------


def test_who_is_here(browser, other, sample, room):
    browser.sign_in("john")
    enter(browser, room)
    browser.until(lambda: people(browser) == ["john (you)"], "john sees himself")
    assert browser.text("[data-people-count]") == "1"
    enter(other, room)
    browser.until(lambda: browser.text("[data-guests]") == "1 guest", "a guest")
    other.until(lambda: (people(other), other.text("[data-guests]")) == (["john"], "1 guest"), "the guest sees both")
    other.sign_in("mary")
    enter(other, room)
    browser.until(lambda: people(browser) == ["john (you)", "mary"], "mary has come")
    browser.until(lambda: browser.text("[data-guests]") == "", "the guest has gone")
    assert browser.text("[data-people-count]") == "2"
    page = sample.request("GET", f"/rooms/{room}/").text  # as rendered
    assert re.findall('person-name">([a-z]+)', page) == ["john", "mary"]
    other.open("/")
    browser.until(lambda: people(browser) == ["john (you)"], "mary has gone")


def test_who_is_here_is_shown_as_old_while_the_line_is_broken(serve, browser, room):
    site = serve(processes=1)
    browser.reset(site)
    browser.sign_in("john")
    enter(browser, room)
    browser.until(lambda: people(browser) == ["john (you)"], "john sees himself")
    assert "As of" not in browser.text("[data-people]")
    stopped(site)
    browser.until(lambda: "As of the last connection" in browser.text("[data-people]"), "the page says so")
    assert people(browser) == ["john (you)"]
    assert browser.hard_to_read() == []
    site.start()
    comes_back(browser)
    browser.until(lambda: "As of" not in browser.text("[data-people]"), "it is known again")
    browser.console()


def test_a_page_that_is_older_than_the_sign_in_writes_nothing(browser, room):
    """A browser may keep it, and show it again: it says john, but its line would be mary's."""
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("dispatchEvent(new Event('pagehide'))")
    browser.sign_out_in_another_tab()
    page = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.sign_in("mary")
    browser.driver.close()
    browser.driver.switch_to.window(page)
    browser.driver.execute_script("dispatchEvent(new Event('pageshow'))")
    browser.until(lambda: browser.find("[data-line]").get_dom_attribute("data-state") == "offline", "the end")
    assert "you can no longer send from here" in browser.text(".composer-box")
    assert "Signed out" in browser.text(".account")


def test_who_is_typing(browser, other, room):
    browser.sign_in("john")
    other.sign_in("mary")
    for each in (browser, other):
        enter(each, room)
    other.write("message", "h")
    browser.until(lambda: browser.text("[data-typing]") == "mary is typing …", "mary is typing")
    assert other.text("[data-typing]") == ""
    say(other, "ello")
    shows(browser, "hello")
    assert browser.text("[data-typing]") == ""
    other.write("message", "and now for nothing")
    browser.until(lambda: browser.text("[data-typing]") == "mary is typing …", "mary is typing again")
    last, box, scroll, typing = browser.driver.execute_script("""
        const said = document.querySelector("[data-talk]").lastElementChild;
        return [said, ...document.querySelectorAll("[data-typing], [data-scroll], .talk-box")].map((element) => {
            const { top, bottom } = element.getBoundingClientRect();
            return { top, bottom };
        })""")
    assert scroll["bottom"] == pytest.approx(box["bottom"], abs=2)  # messages are cut off by its border only
    assert last["bottom"] <= typing["top"]
    browser.until(lambda: browser.text("[data-typing]") == "", "she has stopped")


# --- what is new ------------------------------------------------------------------------------------------------------


def test_unread_messages_are_counted_and_marked(whole_browser, other, sample, room):
    browser = whole_browser
    other.sign_in("mary")
    enter(other, room)
    say(other, "first")
    browser.sign_in("john")
    enter(browser, room)
    shows(browser, "first")
    browser.open("/rooms/")
    assert unread(browser, room) is None
    say(other, "second")
    say(other, "third")
    shows(other, "first", "second", "third")
    browser.open("/rooms/")
    assert unread(browser, room) == "2"
    browser.press(f"[href='/rooms/{room}/']")
    in_line(browser)
    assert after_divider(browser) == "second"
    say(other, "fourth")  # seen at once
    shows(browser, "first", "second", "third", "fourth")
    browser.until(lambda: unread_of(sample, "john", room) == 0, "the server knows")
    browser.driver.back()
    browser.until(lambda: unread(browser, room) is None, "nothing is unread")


def test_a_list_that_the_browser_has_not_kept_is_loaded_again(browser, sample, room):
    """It shows the page as it was, from its cache of what it has loaded."""
    post(sample, sample.login("mary"), room, "first")
    browser.sign_in("john")
    browser.open(f"/rooms/{room}/")
    shows(browser, "first")
    browser.open("/rooms/")
    post(sample, sample.login("mary"), room, "second")
    browser.open("/rooms/")
    assert unread(browser, room) == "1"
    browser.press(f"[href='/rooms/{room}/']")
    in_line(browser)
    browser.until(lambda: unread_of(sample, "john", room) == 0, "the server knows")
    browser.driver.back()
    browser.until(lambda: unread(browser, room) is None, "nothing is unread")


def unread_of(site, username, room):
    code = f"""
from chat.rooms import conversation
from django.contrib.auth.models import User
print(conversation.last_number({room!r}) - conversation.read_mark({room!r}, User.objects.get(username={username!r})))
"""
    return int(site.manage("shell", "-v0", "-c", code))


def test_unread_numbers_are_looked_up_when_somebody_comes_back_to_the_list(browser, sample, room):
    mary = sample.login("mary")
    post(sample, mary, room, "first")
    browser.sign_in("john")
    browser.open(f"/rooms/{room}/")
    browser.open("/rooms/")
    assert unread(browser, room) is None
    browser.driver.minimize_window()
    post(sample, mary, room, "second")
    browser.driver.set_window_rect(0, 0, DESKTOP, 800)
    browser.until(lambda: unread(browser, room) == "1", "one message is unread")


def test_what_comes_while_the_page_is_out_of_sight(browser, sample, room):
    mary = sample.login("mary")
    post(sample, mary, room, "seen")
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.minimize_window()
    post(sample, mary, room, "unseen")
    post(sample, mary, room, "unseen too")
    browser.until(lambda: browser.driver.title.startswith("(2) "), "the title counts them")
    assert after_divider(browser) == "unseen"
    assert unread_of(sample, "john", room) == 2
    browser.driver.set_window_rect(0, 0, DESKTOP, 800)
    browser.until(lambda: browser.driver.title.startswith(room), "they have been seen")
    wait_until(lambda: unread_of(sample, "john", room) == 0, what="the server knows")
    assert after_divider(browser) == "unseen"  # still there to see where they began


def test_the_list_stays_where_somebody_reads_and_offers_the_way_to_what_is_new(browser, sample, room):
    fill(sample, room, 50)
    mary = sample.login("mary")
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("document.querySelector('[data-scroll]').scrollTop = -600")
    top = "return document.querySelector('[data-number=\"40\"]').getBoundingClientRect().top"
    before = browser.driver.execute_script(top)
    post(sample, mary, room, "new one")
    browser.until(lambda: browser.text("[data-to-newest]") == "1 new message", "the button")
    post(sample, mary, room, "another")
    browser.until(lambda: browser.text("[data-to-newest]") == "2 new messages", "the button counts")
    assert browser.driver.execute_script(top) == pytest.approx(before, abs=1)
    assert after_divider(browser) == "new one"
    assert browser.hard_to_read() == []
    browser.press("[data-to-newest]")
    browser.until(lambda: not browser.find("[data-to-newest]").is_displayed(), "the button has gone")
    assert browser.driver.execute_script(FROM_BOTTOM) == 0
    post(sample, mary, room, "followed")
    browser.until(lambda: texts(browser)[-1] == "followed", "it comes")
    assert browser.driver.execute_script(FROM_BOTTOM) == 0
    assert not browser.find("[data-to-newest]").is_displayed()
    browser.driver.execute_script("document.querySelector('[data-scroll]').scrollTop = -600")
    shown = texts(browser)
    say(browser, "my own")
    shows(browser, *shown, "my own")
    assert browser.driver.execute_script(FROM_BOTTOM) == 0


def unread_beyond_the_page(browser, site, room):
    """Open a room in which john has read 60 messages, and 120 were written since."""
    fill(site, room, 60)
    browser.sign_in("john")
    enter(browser, room)
    assert unread_of(site, "john", room) == 0
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "[data-to-new]")
    browser.open("/rooms/")
    fill_more(site, room, [f"new {number}" for number in range(120)])
    enter(browser, room)
    assert browser.text("[data-to-new] a") == "120 new messages ↑"


def test_what_was_missed_is_offered_and_counts_as_read_when_it_was_seen(browser, sample, room):
    unread_beyond_the_page(browser, sample, room)
    assert browser.hard_to_read() == []
    post(sample, sample.login("mary"), room, "one more")
    browser.until(lambda: texts(browser)[-1] == "one more", "it comes")
    assert browser.driver.execute_script(FROM_BOTTOM) == 0
    assert unread_of(sample, "john", room) == 121
    browser.driver.execute_script("document.querySelector('[data-scroll]').scrollTop = -600")
    post(sample, sample.login("mary"), room, "and one")
    browser.until(lambda: browser.text("[data-to-newest]") == "1 new message", "the way down to it")
    browser.press("[data-to-new] a")
    browser.until(lambda: not browser.find("[data-to-new]").is_displayed(), "the beginning of what is new")
    assert after_divider(browser) == "new 0"
    divider, box = browser.find("[data-new]").rect, browser.find("[data-scroll]").rect
    assert box["y"] <= divider["y"] < box["y"] + 100
    assert [text for text in texts(browser) if text.startswith("new ")] == [f"new {number}" for number in range(120)]
    assert browser.text("[data-to-newest]") == "122 new messages"
    assert unread_of(sample, "john", room) == 122
    browser.press("[data-to-newest]")
    wait_until(lambda: unread_of(sample, "john", room) == 0, what="the server knows")
    assert not browser.find("[data-to-newest]").is_displayed()


def test_what_was_missed_can_be_marked_as_read(browser, sample, room):
    unread_beyond_the_page(browser, sample, room)
    browser.driver.execute_script("document.querySelector('[data-scroll]').scrollTop = -600")
    browser.tab_to("[data-all-read]")
    browser.keys(Keys.ENTER)
    wait_until(lambda: unread_of(sample, "john", room) == 0, what="the server knows")
    assert not browser.find("[data-to-new]").is_displayed()
    assert browser.has_focus("[data-scroll]")
    browser.open(f"/rooms/{room}/")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "[data-to-new]")


def test_what_was_missed_is_read_page_by_page_without_scripts(browser, sample, room):
    unread_beyond_the_page(browser, sample, room)
    browser.scripts(False)
    browser.open(f"/rooms/{room}/")
    browser.press("[data-to-new] a")
    browser.until(lambda: browser.driver.current_url.endswith("?after=60"), "the page where it begins")
    first, box = browser.find(".said").rect, browser.find("[data-scroll]").rect
    assert browser.text(".said .message-text") == "new 0"
    assert box["y"] <= first["y"] < box["y"] + 200
    assert unread_of(sample, "john", room) == 70


def test_new_messages_on_the_page_but_out_of_sight_are_offered(browser, sample, room):
    fill(sample, room, 10)
    browser.sign_in("john")
    enter(browser, room)
    browser.open("/rooms/")
    fill_more(sample, room, ["new 0", *["line\n" * 10] * 20])
    enter(browser, room)
    assert browser.text("[data-to-new] a") == "21 new messages ↑"
    browser.driver.execute_script("document.querySelector('[data-new]').scrollIntoView()")
    browser.until(lambda: not browser.find("[data-to-new]").is_displayed(), "it has been seen")
    browser.open("/rooms/")
    fill_more(sample, room, ["short"])
    enter(browser, room)
    assert after_divider(browser) == "short"
    assert not browser.find("[data-to-new]").is_displayed()
    browser.open("/rooms/")
    fill_more(sample, room, ["short too"])
    enter_without_sockets(browser, room)
    assert not browser.find("[data-to-new]").is_displayed()
    browser.console()  # Chromium's notes about the sockets


def test_earlier_messages_are_put_before_and_nothing_moves(browser, sample, room):
    fill(sample, room, 120)
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("document.querySelector('[data-scroll]').scrollTop = -100000")
    top = "return document.querySelector('[data-number=\"75\"]').getBoundingClientRect().top"
    before = browser.driver.execute_script(top)
    browser.press("[data-earlier]")
    expected = [f"message {number}" for number in range(21, 121)]
    shows(browser, *expected)
    assert browser.driver.execute_script(top) == pytest.approx(before, abs=1)
    browser.driver.execute_script("document.querySelector('[data-earlier]').focus()")
    browser.keys(Keys.ENTER)
    shows(browser, *[f"message {number}" for number in range(1, 121)])
    assert not browser.find("[data-earlier]").is_displayed()
    assert browser.has_focus("[data-scroll]")
    assert browser.driver.current_url.endswith(f"/rooms/{room}/")
    dates = browser.driver.find_elements(By.CSS_SELECTOR, "[data-day]")
    assert 5 <= len(dates) <= 7  # an hour apart, each day once
    assert after_divider(browser) == "message 1"


# --- lines that break -------------------------------------------------------------------------------------------------


def test_a_page_that_was_offline_gets_exactly_what_it_has_missed(browser, other, sample, room):
    mary = sample.login("mary")
    post(sample, mary, room, "before")
    browser.sign_in("john")
    enter(browser, room)
    browser.driver.execute_script("window.dispatchEvent(new PageTransitionEvent('pagehide'))")  # lets go of the line
    missed = [f"missed {number}" for number in range(120)]
    fill_more(sample, room, missed)
    browser.driver.execute_script("window.dispatchEvent(new PageTransitionEvent('pageshow'))")
    shows(browser, "before", *missed)
    assert f"GET /ws/rooms/{room}/?after=1&" in sample.log()
    post(sample, mary, room, "after")
    shows(browser, "before", *missed, "after")
    browser.console()


def fill_more(site, room, messages):
    code = f"""
from chat.rooms import conversation
from django.contrib.auth.models import User
for text in {messages!r}:
    conversation.write({room!r}, User.objects.get(username="mary"), text)
"""
    site.manage("shell", "-c", code)


def new_workers(site, old):
    wait_until(lambda: len(site.workers()) == 2 and not set(old) & set(site.workers()), 40, "new workers")


def test_workers_are_reloaded_and_killed_while_others_write(serve, private_redis, browser, room, tmp_path):
    touch = tmp_path / "reload"
    touch.touch()
    site = serve(redis=private_redis, processes=2, options=["--lazy-apps", "--touch-chain-reload", touch])
    browser.reset(site)
    cookies = {name: site.login(name) for name in ("mary", "john")}
    enter(browser, room)
    stop = threading.Event()
    stored = {"mary": 0, "john": 0}

    def write(name):
        key = None
        while key or not stop.is_set():  # what became of the last one is not left open
            key = key or str(uuid.uuid4())
            try:
                token = re.search("csrftoken=([^;]+)", cookies[name])[1]
                answer = site.request(
                    "POST",
                    f"/rooms/{room}/",
                    {"Content-Type": "application/x-www-form-urlencoded", "X-CSRFToken": token},
                    urlencode({"message": f"{name} {stored[name]}", "key": key}),
                    cookies[name],
                )
            except OSError:
                continue  # sent again with the same key
            stop.wait(0.05)  # few enough for the page to show them all
            if answer.status == 302:
                stored[name] += 1
                key = None

    writers = [threading.Thread(target=write, args=(name,)) for name in stored]
    for writer in writers:
        writer.start()
    try:
        old = site.workers()
        later = time.time() + 60
        os.utime(touch, (later, later))
        wait_until(lambda: "chain reloading complete" in site.log(), 40, "the end of the reload")
        new_workers(site, old)
        comes_back(browser)
        old = site.workers()
        for worker in old:
            os.kill(worker, signal.SIGKILL)
        new_workers(site, old)
        written = sum(stored.values())
        wait_until(lambda: sum(stored.values()) > written + 50, 40, "messages")
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    comes_back(browser)
    expected = json.loads(
        site.manage(
            "shell",
            "-v0",
            "-c",
            f"""
import json
from chat.models import Message
messages = Message.objects.filter(room__slug={room!r}).order_by("number")
assert [message.number for message in messages] == list(range(1, len(messages) + 1))
print(json.dumps([message.text for message in messages]))
""",
        )
    )
    shows(browser, *expected)
    for name, count in stored.items():
        assert [text for text in expected if text.startswith(name)] == [f"{name} {number}" for number in range(count)]
    browser.console()


def test_redis_is_down_for_a_while(private_redis, serve, browser, other, room):
    site = serve(redis=private_redis, processes=2)
    for each, name in ((browser, "john"), (other, "mary")):
        each.reset(site)
        each.sign_in(name)
        enter(each, room)
    say(browser, "before")
    shows(other, "before")
    private_redis.kill()
    say(browser, "while it is down")
    shows(browser, "before", "while it is down")
    private_redis.start()
    shows(other, "before", "while it is down")
    say(other, "after")
    shows(browser, "before", "while it is down", "after")
    private_redis.kill()
    browser.open(f"/rooms/{room}/")
    assert "Live updates are not available at the moment." in browser.text(".talk-box")
    assert browser.hard_to_read() == []
    private_redis.start()
    browser.until(lambda: not browser.find("[data-no-live]").is_displayed(), "they are available again")
    browser.console()


def test_who_signs_out_in_another_window_can_write_no_more(browser, room):
    browser.sign_in("john")
    enter(browser, room)
    browser.write("message", "do not lose me")
    browser.sign_out_in_another_tab()
    browser.until(lambda: "Signed out" in browser.text(".account"), "the header says so")
    assert "you can no longer send from here" in browser.text(".composer-box")
    assert "The list of people is no longer available." in browser.text("[data-people]")
    assert "As of" not in browser.text("[data-people]")
    say(browser, " or copy me")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert texts(browser) == []
    assert browser.hard_to_read() == []


def test_what_was_not_sent_is_there_when_its_author_comes_back_and_only_then(browser, room):
    browser.sign_in("john")
    enter(browser, room)
    browser.write("message", "not sent")
    browser.sign_out_in_another_tab()
    browser.until(lambda: "you can no longer send" in browser.text(".composer-box"), "the page says so")
    browser.sign_in("mary")
    enter(browser, room)
    assert browser.find("[name=message]").get_property("value") == ""
    browser.sign_out_in_another_tab()
    browser.until(lambda: "you can no longer send" in browser.text(".composer-box"), "the page says so")
    browser.press("[data-signed-out] a")
    browser.until(lambda: browser.find("[name=username]"), "the form to sign in")
    browser.sign_in("john")
    enter(browser, room)
    assert browser.find("[name=message]").get_property("value") == "not sent"
    say(browser)
    shows(browser, "not sent")
    enter(browser, room)
    assert browser.find("[name=message]").get_property("value") == ""


# --- every page -------------------------------------------------------------------------------------------------------


def test_a_name_that_is_none(browser):
    browser.open("/rooms/caf%C3%A9 au lait/")
    assert browser.text("h1") == "No room can have this name"
    browser.press("main .button")
    browser.until(lambda: browser.driver.current_url.endswith("/rooms/cafe-au-lait/"), "the room that is most like it")
    browser.console()  # Chromium's note about the page that is missing


def test_a_room_is_opened_by_its_name(browser):
    browser.open("/rooms/")
    browser.write("name", f"Tea Kitchen{Keys.ENTER}")
    browser.until(lambda: browser.driver.current_url.endswith("/rooms/tea-kitchen/"), "the room")


def test_the_pages_on_a_phone_and_a_desktop(browser, sample, room):
    fill(sample, room, 60)
    browser.sign_in("john")
    for width in (PHONE, 390, DESKTOP):
        browser.width(width)
        for path in ("/rooms/", f"/rooms/{room}/", "/rooms/empty-room/", "/rooms/no room/"):
            browser.open(path)
            assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width, path
            assert browser.hard_to_read() == [], path
        browser.open(f"/rooms/{room}/")
        in_line(browser)
        bottom = browser.find(".composer button").rect
        assert bottom["y"] + bottom["height"] <= 800  # the window's height: one can write without scrolling
        assert browser.driver.execute_script("return document.documentElement.scrollHeight") == 800
    browser.console()


def test_a_room_by_keyboard_alone(browser, sample, room):
    fill(sample, room, 60)
    browser.sign_in("john")
    browser.open("/rooms/")
    browser.tab_to(f"[href='/rooms/{room}/']")
    browser.keys(Keys.ENTER)
    browser.until(lambda: browser.driver.current_url.endswith(f"/rooms/{room}/"), "the room")
    in_line(browser)
    browser.tab_to("[data-scroll]")
    browser.keys(Keys.HOME)
    browser.until(lambda: browser.driver.execute_script(FROM_BOTTOM) > 500, "scrolled to the top")
    browser.tab_to("[data-earlier]")
    browser.keys(Keys.ENTER)
    browser.until(lambda: len(texts(browser)) == 60, "earlier messages")
    browser.tab_to("[name=message]")
    browser.keys("no mouse", Keys.ENTER)
    browser.until(lambda: texts(browser)[-1] == "no mouse", "the message")

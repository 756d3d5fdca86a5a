"""The page of staff, ``/ops/``, in a real browser, with the sockets of another one."""

import pytest

from tests.integration.test_browser import (
    DESKTOP,
    PHONE,
    browser,
    clean,
    other,
    sample,
    started_browsers,
)

__all__ = ["browser", "clean", "other", "sample", "started_browsers"]  # fixtures

WIDE = "return document.documentElement.scrollWidth > innerWidth"


def cells(browser, table):
    """What a table shows, read at once: it changes every two seconds."""
    return browser.driver.execute_script(
        "return [...document.querySelectorAll(`[data-table=${arguments[0]}] tr`)]"
        ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.innerText.trim()))",
        table,
    )


def live(browser):
    browser.until(lambda: browser.text("[data-line]") == "live", "the line")
    browser.until(lambda: browser.text("[data-tile=sockets]").isdigit(), "numbers")


def find(browser, what, name):
    field = browser.find(f"[data-find={what}] [name=name]")
    field.clear()
    field.send_keys(name)
    browser.press(f"[data-find={what}] button")


@pytest.mark.parametrize("account", [None, "john"])
def test_others_do_not_see_it(browser, account):
    if account:
        browser.sign_in(account)
    browser.open("/ops/")
    if account:
        assert browser.text("h1") == "You may not do this"
        assert ["403" in line for line in browser.console()] == [True]  # Chromium's own note about the reply
    else:
        assert browser.driver.current_url.endswith("/accounts/login/?next=/ops/")


def test_staff_see_a_user_write_to_him_and_disconnect_him(browser, other, sample, facility):
    other.sign_in("john")
    other.open("/inbox/")
    other.connected()
    browser.sign_in("admin")
    browser.open("/ops/")
    live(browser)
    browser.until(lambda: any(row[0] == "inbox" for row in cells(browser, "kinds")), "the socket of the other browser")
    sample.publish("inbox", '{"text": "for all"}', broadcast=True)
    sample.connect(f"{facility}?subscribe-broadcast")
    sample.publish(facility, *["busy"] * 2000, broadcast=True, expire=0)  # other tests have used this site
    browser.until(lambda: any(row[::3] == [facility, "2,000"] for row in cells(browser, "busiest")), "the messages")
    browser.until(lambda: browser.find("[data-plot=sockets] path").get_attribute("d").count("L"), "a line")
    assert "now " in browser.find("[data-plot=sockets]").get_attribute("aria-label")

    find(browser, "user", "<b>nobody</b>")
    browser.until(lambda: browser.text("[data-said=user]") == "There is no user with this name.", "an answer")
    assert not browser.find("[data-found=user]").is_displayed()
    assert any("404" in line for line in browser.console())
    find(browser, "user", "john")
    browser.until(lambda: browser.text("[data-said=user]").startswith("john has "), "the sockets of john")
    assert any(row[0] == "inbox" and "user" in row[1] for row in cells(browser, "user"))
    field = browser.find("#message-facility")
    assert field.get_property("value") in {row[0] for row in cells(browser, "user")}  # tests share john, and the site
    field.clear()
    field.send_keys("inbox")
    browser.write("text", '{"text": "<i>call us</i>", "sender": "staff"}')
    browser.press("[data-message] button")
    browser.until(lambda: browser.text("[data-done]").startswith("Sent to john: 1 socket listens"), "it is sent")
    other.until(lambda: "<i>call us</i>" in other.text("[data-feed]"), "the message")

    find(browser, "facility", "inbox")
    browser.until(lambda: "john" in browser.text("[data-people]"), "who is there")
    assert "for all" in browser.text("[data-history]")

    browser.press("[data-disconnect] .danger")
    assert browser.text("[data-disconnect] .danger") == "Yes, disconnect john"
    browser.press("[data-cancel]")
    assert browser.has_focus("[data-disconnect] .danger")
    browser.press("[data-disconnect] .danger")
    browser.press("[data-disconnect] .danger")
    browser.until(lambda: browser.text("[data-done]").startswith("Disconnected john: "), "it is done")
    other.until(lambda: other.lines()[0].get_attribute("data-state") == "offline", "the end")
    browser.until(lambda: "4500" in {row[0] for row in cells(browser, "closes")}, "the close code")


def test_a_user_has_all_sockets_shown_or_the_page_says_how_many_more_there_are(browser, sample, facility):
    cookies = sample.login("mary")
    for number in range(20):
        sample.connect(f"{facility}-{number}?subscribe-user", cookies)
    browser.sign_in("admin")
    browser.open("/ops/")
    live(browser)
    find(browser, "user", "mary")
    browser.until(lambda: browser.text("[data-said=user]") == "mary has 20 open sockets.", "the sockets of mary")
    assert [row[:2] for row in cells(browser, "user")] == [[f"{facility}-{number}", "user"] for number in range(20)]

    many = "window.fetch = async () => Response.json({ shown: [], sockets: 12345, missing: 0 })"
    browser.driver.execute_script(many)  # a site without a limit for each user
    find(browser, "user", "mary")
    browser.until(lambda: cells(browser, "user") == [["and 12,345 more"]], "what is not shown")


def test_it_can_be_read_on_every_screen_and_used_by_keyboard(browser):
    browser.sign_in("admin")
    browser.open("/ops/")
    live(browser)
    find(browser, "user", "admin")
    find(browser, "facility", "news")
    browser.until(lambda: "admin has" in browser.text("[data-said=user]"), "the sockets")
    browser.until(lambda: "listen" in browser.text("[data-said=facility]"), "the facility")
    for width in (PHONE, DESKTOP):
        browser.width(width)
        assert browser.hard_to_read() == []
        assert not browser.driver.execute_script(WIDE)
    browser.find("h1").click()
    browser.tab_to("[data-find=user] input")
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = {"button", "textbox", "combobox", "link", "image", "region"}
    assert [
        node["role"]["value"]
        for node in tree
        if node["role"]["value"] in controls and not node["ignored"] and not node.get("name", {}).get("value")
    ] == []

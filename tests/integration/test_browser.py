"""The sample's pages in a real browser: headless Chromium against the running site."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from testbed.chromium import headless_shell
from testbed.sites import DEMO_ACCOUNTS
from tests.requires import need

CONSUMER_PAGES = ["/echo/", "/random/", "/rooms/", "/rooms/lobby/"]
OPEN_PAGES = ["/", "/broadcast/", "/session/", "/inbox/", "/accounts/login/", *CONSUMER_PAGES]
SIGNED_IN_PAGES = [
    "/",
    "/form/",
    "/broadcast/",
    "/user/",
    "/group/",
    "/session/",
    "/send/",
    "/inbox/",
    "/accounts/login/",
    *CONSUMER_PAGES,
]
PHONE, DESKTOP = 360, 1280  # pixels wide
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

# Where an element may be clicked, or null while something else lies above.
CENTER = """
    const [element] = arguments;
    element.scrollIntoViewIfNeeded();
    const { x, y, width, height } = element.getClientRects()[0];
    const place = { x: x + width / 2, y: y + height / 2 };
    return element.contains(document.elementFromPoint(place.x, place.y)) ? place : null;
"""


def chromium(directory, whole=False):
    """The program to start: the headless shell if there is one.

    ``whole``: the one with windows, which keeps pages that were left and shows them again.
    """
    shell = None if whole else headless_shell(directory)
    return shell or need("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Chromium with a profile of its own, and the words the tests need."""

    def __init__(self, profile, whole=False):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium(profile, whole)
        options.add_argument("--headless")
        options.add_argument(f"--user-data-dir={profile}")
        for switch in ("gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage"):
            options.add_argument(f"--disable-{switch}")
        options.add_argument("--no-first-run")
        options.add_argument("--force-prefers-reduced-motion")
        options.add_argument("--in-process-gpu")
        # One process for all pages, and none kept ready for the next one.
        options.add_argument("--renderer-process-limit=1")
        options.add_argument("--disable-site-isolation-trials")
        options.add_argument("--disable-features=SpareRendererForSitePerProcess")
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to work for root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(need("chromedriver")))
        self.site = None

    def reset(self, site):
        """Begin anew as a visitor of ``site`` who was never there, at a desktop."""
        self.site = site
        for window in self.driver.window_handles[1:]:
            self.driver.switch_to.window(window)
            self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.scripts(True)
        self.blocked()
        self.media("light")
        self.width(DESKTOP)
        self.console()

    # --- what a person does

    def open(self, path):
        self.driver.get(self.site.url + path)

    def sign_in(self, username):
        """Sign in without looking at a page, which costs more than many a test."""
        for cookie in self.site.login(username).split("; "):
            name, _, value = cookie.partition("=")
            self.driver.execute_cdp_cmd("Network.setCookie", {"url": self.site.url, "name": name, "value": value})

    def sign_in_by_form(self, username):
        self.open("/accounts/login/")
        self.write("username", username)
        self.write("password", DEMO_ACCOUNTS[username])
        self.press("main form button")
        self.until(lambda: username in self.text(".account"), "signing in")
        self.site.session_keys.add(self.driver.get_cookie("sessionid")["value"])

    def sign_out_in_another_tab(self):
        page = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.open("/")
        self.press(".account button")
        self.until(lambda: "Sign in" in self.text(".account"), "signing out")
        self.driver.close()
        self.driver.switch_to.window(page)

    def write(self, field, text):
        self.find(f"[name={field}]").send_keys(text)

    def press(self, selector):
        """Click, as soon as nothing lies above: what has just come may move it.

        A press and a release of the mouse there: WebDriver's own click takes six times as much of a core, for it moves
        the mouse first and waits for frames.
        """
        place = self.until(lambda: self.driver.execute_script(CENTER, self.find(selector)), f"{selector} lies free")
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, **place, "button": "left", "clickCount": 1}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def send(self, text, audience=None, recipient=None):
        """Fill in the page's form and send it."""
        if audience:
            self.press(f"[name=audience][value={audience}]")
        if recipient:
            self.find("[name=recipient]").clear()
            self.write("recipient", recipient)
        self.write("message", text)
        self.press("main form button")

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector):
        """Press the tab key until the element has the focus."""
        for _ in range(40):
            if self.has_focus(selector):
                return
            self.keys(Keys.TAB)
        raise AssertionError(f"{selector} cannot be reached by keyboard")

    # --- what a person sees

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def has_focus(self, selector):
        return self.driver.execute_script("return document.activeElement.matches(arguments[0])", selector)

    def until(self, condition, what):
        """Wait for a condition, and return what it returns.

        A look takes 15 ms of a core, in four processes: the longer it waits, the fewer.
        """

        def met():
            try:
                return condition()
            except (NoSuchElementException, StaleElementReferenceException):
                return False  # the page is just being replaced
            except WebDriverException as error:
                if "does not belong to the document" not in str(error):  # the driver's other words for it
                    raise
                return False

        began = time.monotonic()
        while not (found := met()):
            waited = time.monotonic() - began
            if waited > 15:
                raise TimeoutException(what)
            time.sleep(min(0.05 + waited / 5, 0.3))
        return found

    def connected(self):
        """Wait until every line of the page is connected."""
        self.until(
            lambda: {line.get_attribute("data-state") for line in self.lines()} == {"connected"}, "lines are connected"
        )

    def lines(self):
        return self.driver.find_elements(By.CSS_SELECTOR, "[data-socket]")

    def messages(self):
        """What has arrived, the newest first: audience and text, and the sender between them if the page shows one."""
        script = """
            return [...document.querySelectorAll("[data-feed] li")].map((item) =>
                [...item.querySelectorAll(".badge, .sender, .message-text")].map((part) => part.textContent))"""
        return [tuple(parts) for parts in self.driver.execute_script(script)]

    def shows(self, *messages):
        """Wait until exactly these messages have arrived."""
        try:
            self.until(lambda: self.messages() == list(messages), "messages")
        except Exception:
            raise AssertionError(f"expected {list(messages)}, the page shows {self.messages()}") from None

    def console(self):
        """The errors and warnings written to the console since the last time it was asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def unexpected(self):
        """The same without what Chromium writes when a page is left while it connects."""
        return [line for line in self.console() if "closed before the connection is established" not in line]

    # --- what kind of browser it is

    def width(self, pixels):
        metrics = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": pixels == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def hard_to_read(self):
        """Return the texts that do not stand out from their background, in the light and in the dark."""
        found = []
        for scheme in ("dark", "light"):
            self.media(scheme)
            found += [f"{scheme}: {text}" for text in self.driver.execute_script(CONTRAST)]
        return found

    def media(self, scheme):
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def blocked(self, *urls):
        """From now on let it load everything but these, which are patterns."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": bool(urls)})
        self.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": urls})

    def scripts(self, enabled):
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not enabled})


@pytest.fixture(scope="module")
def started_browsers(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        browsers = {}

        def started(number, whole=False):
            if (number, whole) not in browsers:
                browser = browsers[number, whole] = Browser(tmp_path_factory.mktemp("profile"), whole)
                stack.callback(browser.driver.quit)
            return browsers[number, whole]

        yield started


@pytest.fixture(scope="module")
def sample(shared_serve):
    """The sample with the policy that it ships."""
    return shared_serve(settings={"WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels"})


@pytest.fixture
def clean(redis_client):
    """No message is kept from an earlier test, but histories go on: a server would tell that they were lost."""
    for key in redis_client.scan_iter("ws:*", _type="string"):
        redis_client.delete(key)


def visiting(browser, site):
    """Hand out a browser that was never on this site; what it writes to its console, and no test asks for, fails."""
    browser.reset(site)
    yield browser
    assert browser.unexpected() == []


@pytest.fixture
def browser(started_browsers, sample, clean):
    """A browser; what it writes to its console, and the test does not ask for, fails the test."""
    yield from visiting(started_browsers(0), sample)


@pytest.fixture
def whole_browser(started_browsers, sample, clean):
    """The same, which keeps pages that were left."""
    yield from visiting(started_browsers(0, whole=True), sample)


@pytest.fixture
def other(started_browsers, sample, clean):
    """Somebody else's browser."""
    yield from visiting(started_browsers(1), sample)


# --- the client -------------------------------------------------------------------------------------------------------

OPENED_AND_CLOSED = """
const [facility, consumer, done] = arguments;
import("/static/wsloop/wsloop.js").then(({ connect, connectConsumer }) => {
  connect(facility, { onMessage() {} }).close(); // as React's StrictMode does with each effect
  connectConsumer(consumer).close();
  const line = connectConsumer(consumer, {
    onOpen: () => line.send("hello"),
    onMessage(text) {
      line.close();
      done(text);
    },
  });
});
"""


def test_what_is_closed_at_once_opens_no_socket_and_leaves_no_warning(browser):
    browser.open("/")
    addresses = "/ws/closed-at-once?subscribe-broadcast", "/ws/echo/"
    assert browser.driver.execute_async_script(OPENED_AND_CLOSED, *addresses) == "hello"
    assert browser.console() == []


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_posted_by_fetch_comes_back_over_the_socket(browser):
    browser.sign_in_by_form("john")
    browser.open("/form/")
    browser.connected()
    browser.driver.execute_script("window.isStillTheSamePage = true")
    browser.send("Grüße <b>an mich</b>")
    browser.shows(("user", "Grüße <b>an mich</b>"))
    browser.until(lambda: browser.text("[data-status]") == "Sent.", "the form says so")
    assert browser.find("[name=message]").get_property("value") == ""
    assert browser.has_focus("[name=message]")
    browser.send("the second")
    browser.shows(("user", "the second"), ("user", "Grüße <b>an mich</b>"))
    assert browser.driver.execute_script("return window.isStillTheSamePage")


def test_the_page_shows_the_last_message_when_it_is_opened_again(browser):
    browser.sign_in("john")
    browser.open("/form/")
    browser.send("kept")
    browser.shows(("user", "kept"))
    browser.open("/form/")
    browser.shows(("user", "kept"))


def test_mary_writes_to_john_in_another_browser(browser, other):
    browser.sign_in("john")
    browser.open("/inbox/")
    browser.connected()
    other.sign_in("mary")
    other.open("/send/")
    other.send("only for john", audience="user", recipient="john")
    first = ("user", "mary", "only for john")
    browser.shows(first)
    other.send("for the group", audience="group", recipient="chatters")
    browser.shows(second := ("group", "mary", "for the group"), first)
    other.send("for all", audience="broadcast")
    browser.shows(third := ("broadcast", "mary", "for all"), second, first)
    assert len(browser.lines()) == 1  # one socket for all audiences
    other.open("/inbox/")  # mary gets what was kept for her audiences, and nothing of john's
    other.connected()
    other.shows(third, second)


def test_every_tab_of_a_browser_shows_what_goes_to_its_session(browser, other):
    other.open("/session/")
    other.connected()
    browser.open("/session/")
    browser.connected()
    first_tab = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open("/session/")
    browser.connected()
    browser.send("to this browser")
    browser.shows(("session", "to this browser"))
    browser.driver.switch_to.window(first_tab)
    browser.shows(("session", "to this browser"))
    other.send("to the other browser")
    other.shows(("session", "to the other browser"))
    browser.send("afterwards")
    browser.shows(("session", "afterwards"), ("session", "to this browser"))


@pytest.mark.parametrize(("page", "audience"), [("/broadcast/", "broadcast"), ("/group/", "group")])
def test_the_pages_of_the_audiences(browser, other, page, audience):
    if audience == "group":
        browser.sign_in("john")
    other.sign_in("mary")
    for each in (browser, other):
        each.open(page)
        each.connected()
    other.send("hello")
    browser.shows((audience, "hello"))
    other.shows((audience, "hello"))


def test_the_page_of_a_user_in_two_browsers(browser, other):
    for each in (browser, other):
        each.sign_in("john")
        each.open("/user/")
        each.connected()
    browser.send("hello")
    browser.shows(("user", "hello"))
    other.shows(("user", "hello"))


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_an_error_stands_at_its_field_and_has_the_focus(browser):
    browser.sign_in("john")
    browser.open("/send/")
    browser.send("hello", audience="user", recipient="nobody")
    browser.until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, "#id_recipient_error"), "an error")
    assert browser.text("#id_recipient_error") == "There is no user named “nobody”."
    assert browser.has_focus("[name=recipient][aria-invalid=true][aria-describedby~=id_recipient_error]")
    assert browser.find("[name=message]").get_property("value") == "hello"
    assert ["400" in line for line in browser.console()] == [True]  # Chromium's own note about the reply
    browser.find("[name=recipient]").clear()
    browser.write("recipient", "mary")
    browser.press("main form button")
    browser.until(lambda: browser.text("[data-status]") == "Sent.", "the form is sent")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, ".errorlist, [aria-invalid]")


def test_a_session_that_has_ended_meanwhile(browser):
    browser.sign_in("john")
    browser.open("/form/")
    browser.driver.delete_cookie("sessionid")
    browser.send("do not lose me")
    browser.until(lambda: browser.text("[data-status]") == "Sign in, then send it again.", "the form says so")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert ["403" in line for line in browser.console()] == [True]


def test_redis_is_down_for_a_while(private_redis, serve, browser):
    site = serve(redis=private_redis)
    browser.reset(site)
    browser.sign_in("john")
    browser.open("/form/")
    browser.connected()
    private_redis.kill()
    browser.send("do not lose me")
    browser.until(lambda: "could not be delivered" in browser.text("[data-status]"), "the form says so")
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert ["503" in line for line in browser.console()] == [True]
    assert not browser.find("[data-lost]").is_displayed()
    private_redis.start()  # without its data: nobody can tell what else was published
    browser.until(lambda: browser.find("[data-lost]").is_displayed(), "the page says so")
    browser.press("main form button")
    browser.shows(("user", "do not lose me"))


def test_the_page_connects_again_when_the_server_was_gone(serve, browser):
    site = serve(processes=1)
    browser.reset(site)
    browser.sign_in("john")
    browser.open("/form/")
    browser.connected()
    browser.send("before")
    browser.shows(("user", "before"))
    browser.driver.execute_script("""
        window.states = [];
        const line = document.querySelector("[data-socket]");
        new MutationObserver(() => states.push(line.dataset.state)).observe(line, { attributeFilter: ["data-state"] });
    """)
    os.kill(site.workers()[0], signal.SIGKILL)  # uWSGI's master starts another
    browser.until(lambda: browser.driver.execute_script("return states.at(-1)") == "connected", "connected again")
    assert browser.driver.execute_script("return states") == ["reconnecting", "connected"]
    browser.send("after")
    browser.shows(("user", "after"), ("user", "before"))
    browser.console()


TWO_SUBSCRIPTIONS = """
const [done] = arguments;
import("/static/wsloop/wsloop.js").then(({ open }) => {
  const socket = open("/ws/");
  window.seen = { "gap-a": [], "gap-b": [] };
  window.lost = [];
  for (const facility of Object.keys(seen)) {
    const line = socket.subscribe(facility, {
      audiences: ["broadcast"],
      onMessage: ({ data }) => seen[facility].push(Number(data)),
      onLost: (loss) => lost.push(loss),
      onState: ({ name }) => name === "connected" && Object.keys(seen).at(-1) === facility && done(),
    });
  }
});
"""
TWO_FACILITIES = """
import time
from wsloop.publisher import RedisPublisher
for number in range({}, {}):
    for facility in ("gap-a", "gap-b"):
        RedisPublisher(facility=facility, broadcast=True).publish_message(str(number))
    time.sleep({})
"""


def test_a_socket_of_a_page_misses_nothing_while_workers_die_and_the_page_sleeps_or_is_offline(serve, browser):
    site = serve(processes=2, settings={"WSLOOP": {"FACILITIES": {"gap-*": {"size": 1000, "ttl": 600}}}})
    browser.reset(site)
    browser.open("/accounts/login/")  # which has no socket of its own
    browser.driver.execute_async_script(TWO_SUBSCRIPTIONS)

    def publish(first, last, pause=0.0):
        site.manage("shell", "-v0", "-c", TWO_FACILITIES.format(first, last, pause))

    def kill():
        for worker in site.workers():
            os.kill(worker, signal.SIGKILL)

    def arrived(last):
        numbers = list(range(last))

        def all_of_them():
            return browser.driver.execute_script("return [seen['gap-a'], seen['gap-b']]") == [numbers, numbers]

        browser.until(all_of_them, f"all {last} messages, each once and in order")

    with ThreadPoolExecutor(1) as executor:  # killed in the middle of what is published
        publishing = executor.submit(publish, 0, 200, 0.02)
        browser.until(lambda: browser.driver.execute_script("return seen['gap-a'].length") > 20, "a part of it")
        kill()
        publishing.result()
    arrived(200)
    browser.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    publish(200, 210)
    kill()
    publish(210, 220)
    browser.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    arrived(220)
    network = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network)
    kill()  # the socket breaks, and no other opens
    publish(220, 230)
    assert browser.driver.execute_script("return seen['gap-a'].length") == 220
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": False})
    arrived(230)
    assert browser.driver.execute_script("return lost") == []
    browser.console()


def stopped(site):
    """End the server; its directory stays, with the database."""
    site.send_signal(signal.SIGTERM)
    site.wait()


def publish_meanwhile(site, *messages):
    """Publish to john while no server runs, as a task of the site would."""
    code = f"""
from wsloop.publisher import RedisPublisher
for message in {messages!r}:
    RedisPublisher(facility="form", users=["john"]).publish_message(message)
"""
    site.manage("shell", "-c", code)


def comes_back(browser, site):
    """Start the site again, and have the page connect at once: its own pause may be half a minute."""
    site.start()
    browser.driver.execute_script("window.dispatchEvent(new Event('online'))")
    browser.connected()


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_published_between_rendering_and_connecting_is_shown(browser, fresh):
    """A note that is fresh was perhaps published when the server had the token already: then it comes once more."""
    browser.sign_in("john")
    browser.site.publish("form", "kept", users=["john"])
    browser.blocked("*/main*.js")
    browser.open("/form/")
    browser.blocked()
    browser.shows(("user", "kept"))
    assert not browser.lines()[0].is_displayed()
    browser.site.publish("form", "kept", "two", users=["john"])
    browser.driver.execute_script(
        """
        if (arguments[0]) document.querySelector("[data-kept]").dataset.fresh = "";
        const script = document.createElement("script");
        script.type = "module";
        script.src = document.querySelector("script[type=module]").src + "?late";
        document.head.append(script);
        """,
        fresh,
    )
    browser.connected()
    browser.shows(("user", "two"), ("user", "kept"), *[("user", "kept")] * (not fresh))


def test_a_page_shows_no_kept_message_twice(browser):
    browser.sign_in("john")
    browser.site.publish("form", "kept", users=["john"])
    browser.open("/form/")
    browser.connected()
    browser.send("next")
    browser.shows(("user", "next"), ("user", "kept"))


def test_the_page_shows_exactly_what_was_missed_while_the_server_was_gone(serve, browser):
    site = serve()
    browser.reset(site)
    browser.sign_in("john")
    browser.open("/form/")
    browser.connected()
    browser.send("before")
    browser.shows(("user", "before"))
    stopped(site)
    browser.until(lambda: browser.lines()[0].get_attribute("data-state") == "reconnecting", "the page has noticed")
    publish_meanwhile(site, "missed", "missed, too", "missed")
    comes_back(browser, site)
    browser.send("after")
    missed = [("user", "missed"), ("user", "missed, too"), ("user", "missed")]
    browser.shows(("user", "after"), *missed, ("user", "before"))
    assert not browser.find("[data-lost]").is_displayed()
    browser.console()  # Chromium's notes about attempts to connect


def test_the_page_says_that_messages_are_lost(private_redis, serve, browser):
    site = serve(redis=private_redis)
    browser.reset(site)
    browser.sign_in("john")
    browser.open("/form/")
    browser.connected()
    browser.send("before")
    browser.shows(("user", "before"))
    stopped(site)
    with private_redis.client() as client:
        client.flushall()
    publish_meanwhile(site, "missed")
    comes_back(browser, site)
    browser.until(lambda: browser.find("[data-lost]").is_displayed(), "the page says so")
    assert "Messages were lost" in browser.text("[data-lost]")
    browser.shows(("user", "before"))
    browser.tab_to("[data-lost] a")
    browser.keys(Keys.ENTER)
    browser.shows(("user", "missed"))
    browser.connected()
    assert not browser.find("[data-lost]").is_displayed()
    browser.console()


def test_a_page_whose_user_has_signed_out_elsewhere(browser):
    browser.sign_in("john")
    browser.open("/form/")
    browser.connected()
    browser.write("message", "do not lose me")
    assert not browser.find("main form [data-signed-out]").is_displayed()
    browser.sign_out_in_another_tab()
    browser.until(lambda: "Signed out" in browser.text(".account"), "the header says so")
    assert "john" not in browser.text(".account")
    assert "you can no longer send" in browser.text("main form")
    browser.driver.execute_script("window.fetch = () => { window.posted = true }")
    browser.keys(" Or copy me.")
    browser.press("main form button")
    browser.find("main form button").send_keys(Keys.ENTER)
    assert browser.find("[name=message]").get_property("value") == "do not lose me"
    assert not browser.driver.execute_script("return window.posted")
    assert browser.find("main form button").get_attribute("aria-disabled") == "true"
    assert browser.hard_to_read() == []
    browser.tab_to("main form [data-signed-out] a")
    browser.keys(Keys.ENTER)
    browser.until(lambda: "?next=/form/" in browser.driver.current_url, "the page to sign in at, which leads back")


# --- the client by itself ---------------------------------------------------------------------------------------------

CLIENT = """
const [path, options] = arguments;
const done = arguments[arguments.length - 1];
const module = performance.getEntriesByType("resource").find(({ name }) => name.includes("/wsloop/wsloop."));
window.told = { messages: [], presences: [], losses: [] };
import(module.name).then(({ connect }) => {
  window.line = connect(path, {
    ...options,
    ...(options.accessToken && { accessToken: async () => options.accessToken }),
    onMessage: ({ data, ...more }) => told.messages.push({ ...more, data: data.at ? data : [...data] }),
    onPresence: (...all) => told.presences.push(all),
    onLost: (loss) => told.losses.push(loss),
    onState: (state) => state.name === "connected" && done(state),
  });
});
"""
PUBLISH = """
const [data, bytes] = arguments;
const done = arguments[arguments.length - 1];
line.publish(bytes ? Uint8Array.from(data) : data).then(() => done("taken"), ({ code }) => done(code));
"""


@pytest.fixture(scope="module")
def recovering(shared_serve):
    """A site on which everything is allowed, and every facility has a history and presence."""
    return shared_serve(settings={"WSLOOP": {"FACILITIES": {"*": {"size": 100, "presence": True}}}})


def told(browser, what):
    return browser.driver.execute_script("return told[arguments[0]]", what)


def test_the_client_notices_a_dead_line_and_no_other(serve, browser, facility):
    site = serve(settings={"WSLOOP": {"PING_INTERVAL": 1}})
    browser.reset(site)
    browser.open("/broadcast/")
    browser.connected()
    browser.driver.execute_script("""
        window.states = [];
        const line = document.querySelector("[data-socket]");
        new MutationObserver(() => states.push(line.dataset.state)).observe(line, { attributeFilter: ["data-state"] });
    """)
    browser.driver.execute_async_script("setTimeout(arguments[0], 3000)")  # longer than it waits for a ping
    assert browser.driver.execute_script("return states") == []
    (worker,) = site.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        browser.until(lambda: browser.driver.execute_script("return states") == ["reconnecting"], "given up")
    finally:
        os.kill(worker, signal.SIGCONT)
    browser.connected()
    browser.console()  # Chromium's note, if an attempt was cut


def test_the_client_publishes_and_is_answered(browser, recovering, facility):
    browser.reset(recovering)
    browser.sign_in("john")
    browser.open("/accounts/login/")  # of this origin, without a socket of its own
    run = browser.driver.execute_async_script
    assert run(CLIENT, f"/ws/{facility}?subscribe-user&publish-user", {})["subscribed"] == ["user"]
    assert run(PUBLISH, "Grüße", False) == "taken"
    assert run(PUBLISH, [0, 1, 2, 255], True) == "taken"
    browser.until(lambda: len(told(browser, "messages")) == 2, "two messages")
    mine = {"audience": "user", "own": True, "kept": False}
    messages = told(browser, "messages")
    assert len({message.pop("id") for message in messages}) == 2
    assert messages == [{"data": "Grüße", **mine}, {"data": [0, 1, 2, 255], **mine}]
    run(CLIENT, f"/ws/{facility}?subscribe-user", {})
    assert run(PUBLISH, "not allowed", False) == "refused"


PAGE_CLIENT = """
const [facilities, done] = arguments;
const module = performance.getEntriesByType("resource").find(({ name }) => name.includes("/wsloop/wsloop."));
window.told = { messages: [] };
import(module.name).then(({ open }) => {
  window.socket = open("/ws/");
  window.lines = facilities.map((facility) =>
    socket.subscribe(facility, {
      audiences: ["user"],
      publish: ["user"],
      queue: { most: 10, seconds: 60 },
      onMessage: ({ data }) => told.messages.push([facility, data]),
      onState() {
        const states = window.lines?.map(({ state }) => state) ?? [{ name: "connecting" }];
        if (states.every(({ name }) => name !== "connecting")) done(states);
      },
    }),
  );
});
"""
AWAY = """
dispatchEvent(new Event("pagehide"));
window.published = lines[0].publish("in the tunnel");
"""
# The socket closes as soon as it has sent the message: the answer does not arrive, and the message is sent again.
UNANSWERED = """
const done = arguments[0];
const { send } = WebSocket.prototype;
WebSocket.prototype.send = function (text) {
  WebSocket.prototype.send = send;
  this.send(text);
  window.first = JSON.parse(text);
  setTimeout(() => { dispatchEvent(new Event("pagehide")); dispatchEvent(new Event("pageshow")); });
  this.onmessage = () => {};
};
lines[0].publish("sent twice").then(() => done("taken"), ({ code }) => done(code));
"""
ASK = """
const done = arguments[0];
const page = (options) => lines[0].history(options);
Promise.all([page({ limit: 2 }), socket.call("GET", "/").catch(({ code }) => code)]).then(async ([last, called]) => {
  const before = await page({ limit: 10, before: last.before });
  done([...before.messages, ...last.messages].map(({ data }) => data).concat(called));
}, (error) => done(String(error)));
"""


def test_the_client_of_a_whole_page_loses_nothing_and_sends_nothing_twice(browser, recovering, facility):
    browser.reset(recovering)
    browser.sign_in("john")
    browser.open("/accounts/login/")  # of this origin, without a socket of its own
    run, do = browser.driver.execute_async_script, browser.driver.execute_script
    other = f"{facility}-other"
    first, second, refused = run(PAGE_CLIENT, [facility, other, "john:private"])
    assert [first["name"], second["name"], refused["name"]] == ["connected", "connected", "offline"]
    assert refused["reason"]
    do(AWAY)
    recovering.publish(other, "missed 1", users=["john"])
    recovering.publish(facility, "missed 2", users=["john"])
    recovering.publish(other, "missed 3", users=["john"])
    do("dispatchEvent(new Event('pageshow'))")
    run("published.then(arguments[0])")
    missed = [[other, "missed 1"], [facility, "missed 2"], [other, "missed 3"], [facility, "in the tunnel"]]
    browser.until(lambda: told(browser, "messages") == missed, f"what was missed: {told(browser, 'messages')}")
    assert run(UNANSWERED) == "taken"
    assert do("return first.data") == "sent twice"
    recovering.publish(facility, "the end", users=["john"])
    expected = [*missed, [facility, "sent twice"], [facility, "the end"]]
    browser.until(lambda: told(browser, "messages") == expected, f"each once: {told(browser, 'messages')}")
    assert run(ASK) == ["missed 2", "in the tunnel", "sent twice", "the end", "refused"]


def test_the_client_signs_in_with_a_token(browser, recovering, facility):
    code = "from wsloop import tokens; from django.contrib.auth.models import User; "
    code += "print(tokens.make(User.objects.get(username='john')))"
    token = recovering.manage("shell", "-c", code).split()[-1]
    browser.reset(recovering)
    browser.open("/broadcast/")
    browser.connected()
    connected = browser.driver.execute_async_script(
        CLIENT, f"/ws/{facility}?subscribe-user&publish-user", {"accessToken": token}
    )
    assert connected["subscribed"] == ["user"]
    recovering.publish(facility, "for john", users=["john"])
    browser.until(lambda: [message["data"] for message in told(browser, "messages")] == ["for john"], "the message")


def test_the_client_goes_on_where_another_has_ended(browser, recovering, facility):
    browser.reset(recovering)
    browser.sign_in("john")
    browser.open("/accounts/login/")  # of this origin, without a socket of its own
    run = browser.driver.execute_async_script
    path = f"/ws/{facility}?subscribe-broadcast&subscribe-user"
    assert run(CLIENT, path, {})["recovered"] is None
    recovering.publish(facility, "one", users=["john"])
    recovering.publish(facility, "two", broadcast=True)
    browser.until(lambda: len(told(browser, "messages")) == 2, "two messages")
    token = browser.driver.execute_script("line.close(); return line.token")
    recovering.publish(facility, "three", users=["john"])
    recovering.publish(facility, "four", broadcast=True, users=["john"])
    assert run(CLIENT, path, {"token": token})["recovered"] is True
    recovering.publish(facility, "five", broadcast=True)
    browser.until(lambda: len(told(browser, "messages")) == 3, "three messages")
    assert [(message["audience"], message["data"]) for message in told(browser, "messages")] == [
        ("user", "three"),
        ("broadcast", "four"),
        ("broadcast", "five"),
    ]
    assert told(browser, "losses") == []
    assert run(CLIENT, path, {"token": token[:-1]})["recovered"] is False
    assert [list(loss) for loss in told(browser, "losses")] == [["reason"]]


def test_the_client_tells_who_is_there(browser, other, recovering, facility):
    path = f"/ws/{facility}?subscribe-broadcast&subscribe-presence"
    for each, username in ((browser, "john"), (other, "mary")):
        each.reset(recovering)
        each.sign_in(username)
        each.open("/accounts/login/")
        each.driver.execute_async_script(CLIENT, path, {})
    browser.until(lambda: told(browser, "presences")[-1][0]["users"] == ["john", "mary"], "mary has come")
    other.until(lambda: told(other, "presences")[-1][0]["users"] == ["john", "mary"], "mary sees both")
    other.driver.execute_script("line.close()")
    gone = [{"users": ["john"], "anonymous": 0}, {"event": "leave", "user": "mary"}]
    browser.until(lambda: told(browser, "presences")[-1] == gone, "mary has gone")


# --- without scripts, without a mouse ---------------------------------------------------------------------------------


def test_the_form_without_scripts(browser):
    browser.scripts(False)
    browser.sign_in_by_form("john")
    browser.open("/form/")
    assert "Live updates need JavaScript" in browser.text("main")
    assert "Nothing has arrived yet." in browser.text("main")
    browser.send("as a plain form")
    browser.until(lambda: browser.text(".notices") == "Sent.", "the page says so")
    assert browser.driver.current_url.endswith("/form/")
    assert browser.text(".message-text") == "as a plain form"
    browser.send("   ")
    browser.until(lambda: browser.text("#id_message_error") == "This field is required.", "an error at the field")


def test_sending_without_scripts(browser):
    browser.scripts(False)
    browser.sign_in("john")
    browser.open("/send/")
    browser.send("to myself", audience="user", recipient="john")
    browser.until(lambda: browser.text(".notices") == "Sent.", "the page says so")
    assert browser.find("[name=recipient]").get_attribute("value") == "john"
    browser.open("/inbox/")
    assert (browser.text(".sender"), browser.text(".message-text")) == ("john", "to myself")


def test_signing_in_and_posting_by_keyboard_alone(whole_browser):
    browser = whole_browser  # with windows, which have the focus
    browser.open("/")
    browser.keys(Keys.TAB)
    assert browser.has_focus(".skip")
    assert browser.find(".skip").rect["y"] >= 0  # seen once it has the focus
    browser.tab_to(".account a")
    browser.keys(Keys.ENTER)
    browser.until(lambda: browser.has_focus("[name=username]"), "the first field has the focus")
    browser.keys("john", Keys.TAB, "secret", Keys.ENTER)
    browser.until(lambda: "john" in browser.text(".account"), "signing in")
    browser.site.session_keys.add(browser.driver.get_cookie("sessionid")["value"])
    browser.tab_to(".pages summary")
    browser.keys(Keys.ENTER)
    browser.tab_to(".pages a[href='/form/']")
    browser.keys(Keys.ENTER)
    browser.until(lambda: browser.driver.current_url.endswith("/form/"), "the page of the form")
    browser.connected()
    browser.keys(Keys.TAB)
    browser.keys(Keys.ENTER)  # the skip link
    browser.tab_to("[name=message]")
    browser.keys("no mouse", Keys.TAB)
    assert browser.has_focus("main form button")
    browser.keys(Keys.SPACE)
    browser.shows(("user", "no mouse"))


def opened(browser):
    """The headings of the groups in the navigation whose links are shown."""
    groups = browser.driver.find_elements(By.CSS_SELECTOR, ".pages details[open] summary")
    return [group.text for group in groups]


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_navigation_by_keyboard(browser, width):
    browser.width(width)
    browser.open("/")
    assert opened(browser) == []
    browser.tab_to(".pages summary")
    browser.keys(Keys.ENTER)
    assert opened(browser) == ["Notifications"]
    browser.keys(Keys.TAB)
    assert browser.has_focus(".pages a[href='/form/']")
    browser.keys(Keys.ESCAPE)
    assert opened(browser) == []
    assert browser.has_focus(".pages summary")
    browser.keys(Keys.ENTER, Keys.TAB, Keys.TAB)
    browser.keys(Keys.ENTER)
    browser.until(lambda: browser.driver.current_url.endswith("/broadcast/"), "the page")
    assert opened(browser) == []
    assert browser.text(".pages summary[aria-current]") == "Notifications"
    assert browser.find(".pages [aria-current=page]").get_attribute("href").endswith("/broadcast/")
    browser.tab_to(".pages summary[aria-current]")
    browser.keys(Keys.SPACE)
    browser.tab_to(".pages details:nth-of-type(2) summary")
    assert opened(browser) == [], "the focus has left it"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_one_group_of_the_navigation_is_open_until_a_click_beside_it(browser, width):
    browser.width(width)
    browser.open("/")
    for number, heading in enumerate(("Notifications", "Chat", "Tools"), 1):
        browser.press(f".pages details:nth-of-type({number}) summary")
        assert opened(browser) == [heading]
        assert browser.find(f".pages details:nth-of-type({number}) .menu-about").is_displayed()
    browser.press(".site-footer p")
    assert opened(browser) == []


def test_the_navigation_without_scripts(browser):
    browser.scripts(False)
    browser.open("/")
    browser.press(".pages details:nth-of-type(2) summary")
    browser.press(".pages a[href='/echo/']")
    browser.until(lambda: browser.driver.current_url.endswith("/echo/"), "the page")


# --- every page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", [None, "john", "admin"])
def test_no_page_breaks_the_content_security_policy_or_writes_to_the_console(browser, account):
    if account:
        browser.sign_in(account)
    pages = SIGNED_IN_PAGES if account else OPEN_PAGES
    for page in [*pages, "/inspector/", "/admin/"] if account == "admin" else pages:
        browser.open(page)
        if browser.lines():
            browser.connected()
        assert browser.console() == [], page


@pytest.mark.parametrize("account", [None, "john"])
def test_no_page_is_wider_than_a_phone(browser, account):
    if account:
        browser.sign_in(account)
    browser.width(PHONE)
    for page in [*(SIGNED_IN_PAGES if account else OPEN_PAGES), "/no/such/page/"]:
        browser.open(page)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") == PHONE, page
    browser.console()  # Chromium's note about the page that is missing


def test_texts_stand_out_from_their_background(browser):
    browser.sign_in("john")
    for page in ["/no/such/page/", *SIGNED_IN_PAGES]:
        browser.open(page)
        assert browser.hard_to_read() == [], page
    browser.console()
    browser.open("/inbox/")
    browser.connected()
    for audience in ("broadcast", "user", "group", "session"):
        browser.driver.switch_to.new_window("tab")
        browser.open("/send/")
        browser.send("hello", audience=audience, recipient={"user": "john", "group": "chatters"}.get(audience))
        browser.until(lambda: browser.text("[data-status]") == "Sent.", "sent")
        assert browser.hard_to_read() == [], "the form when it is sent"
        browser.driver.close()
        browser.driver.switch_to.window(browser.driver.window_handles[0])
    browser.until(lambda: len(browser.messages()) == 4, "four messages")
    assert browser.hard_to_read() == [], "the inbox with messages"


def test_dark_and_light_follow_the_system(browser):
    browser.open("/")
    background = "return getComputedStyle(document.body).backgroundColor"
    light = browser.driver.execute_script(background)
    browser.media("dark")
    assert browser.driver.execute_script(background) != light

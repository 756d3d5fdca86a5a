"""HTML over the wire in a real browser: the tag ``live``, htmx, and the sample's list of tasks."""

import json
import re
import textwrap
import types

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from testbed.cutting_proxy import CuttingProxy
from testbed.processes import ROOT
from tests.integration.test_browser import PHONE, browser, clean, other, started_browsers, stopped
from tests.requires import missing

__all__ = ["browser", "clean", "other", "started_browsers"]  # fixtures; `sample` below is what they open

SIZE = 5  # messages in the history of a facility
SPY = """
window.fetches = [];
window.fetch = ((fetch) => (...all) => {
  fetches.push(String(all[0]));
  return fetch(...all);
})(window.fetch);
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...all) {
    super(...all);
    sockets.push(this);
  }
};
"""


GUIDE = ROOT / "docs/how-to/htmx.rst"


def snippet(name):
    """A piece of code of the guide."""
    found = re.search(rf":name: {name}\n\n((?:   .*\n|\n)+)", GUIDE.read_text())
    return textwrap.dedent(found[1])


@pytest.fixture(scope="module")
def sample(shared_serve, tmp_path_factory):
    """The sample with its own policy, histories that are short, and the templates of the guide."""
    directory = tmp_path_factory.mktemp("templates")
    (directory / "orders").mkdir()
    names = {"orders/_row.html": "row", "orders/_added.html": "added", "orders/_removed.html": "removed"}
    names |= {"guide.html": "page", "guide-2.html": "htmx-2", "guide-4.html": "htmx-4"}
    names |= {"guide-sse-2.html": "htmx-sse-2", "guide-sse-4.html": "htmx-sse-4"}
    for path, name in names.items():
        (directory / path).write_text(snippet(name))
    processors = ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth"]
    processors += ["django.contrib.messages.context_processors.messages", "ws4redis.context_processors.default"]
    engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [str(ROOT / "templates"), str(directory)],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": [*processors, "chat.context_processors.site"]},
    }
    return shared_serve(
        settings={
            "WS4REDIS_ALLOWED_CHANNELS": "chat.policy.allowed_channels",
            "WSLOOP": {"FACILITIES": {"*-no": {}, "*": {"size": SIZE}}},
            "TEMPLATES": [engine],
        }
    )


@pytest.fixture
def proxy(sample):
    with CuttingProxy(sample.port) as proxy:
        yield proxy


@pytest.fixture
def page(browser, proxy, facility, redis_client, sample):
    """The page of the test site with two live parts, behind a line that can be cut."""
    page = Page(browser, proxy, facility, redis_client, sample)
    spy = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
    yield page
    browser.driver.get("about:blank")  # before its line ends
    if page.was_away:
        browser.console()  # Chromium's notes about attempts to connect
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", spy)


class Page:
    def __init__(self, browser, proxy, facility, redis_client, site):
        self.browser, self.proxy, self.facility, self.redis, self.site = browser, proxy, facility, redis_client, site
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.run = browser.driver.execute_script
        self.was_away = False

    def items(self, *names):
        """What the page shows when it is rendered from now on."""
        self.redis.set(f"test:live:{self.facility}", json.dumps(names))

    def open(self, query=""):
        self.browser.driver.get(f"{self.url}/test/live/{self.facility}/{query}")
        self.connected()

    def connected(self):
        states = "return [...document.querySelectorAll('wsloop-live[data-url]')].map(({ dataset }) => dataset.state)"
        self.browser.until(lambda: set(self.run(states)) == {"connected"}, "live parts are connected")

    def publish(self, *html):
        self.site.publish(self.facility, *html, broadcast=True, expire=0)

    def shown(self):
        return self.run("return [...document.querySelectorAll('#list > li')].map((item) => item.textContent)")

    def shows(self, *names):
        try:
            self.browser.until(lambda: self.shown() == list(names), "items")
        except Exception:
            raise AssertionError(f"expected {list(names)}, the page shows {self.shown()}") from None

    def away(self, *html):
        """Publish while the browser is offline."""
        self.was_away = True
        self.proxy.stall()
        self.proxy.cut()
        self.publish(*html)
        self.proxy.go()

    def loads(self):
        """How often the page has fetched itself since it was opened."""
        return self.run("return fetches.length")


def item(name, text=None, words=""):
    return f'<li id="item-{name}"{words}><b>{text or name}</b></li>'


def into_list(words, *items):
    return f'<ul id="list" hx-swap-oob="{words}">{"".join(items)}</ul>'


# --- swapping ---------------------------------------------------------------------------------------------------------


def test_elements_are_replaced_added_and_removed_by_their_ids(page):
    page.items("one", "two")
    page.open()
    page.shows("one", "two")
    page.publish(item("one", "Grüße &lt;b&gt;"), into_list("beforeend", item("three")))
    page.shows("Grüße <b>", "two", "three")
    page.publish(into_list("afterbegin", item("zero"), item("half")) + item("two", words=' hx-swap-oob="delete"'))
    page.shows("zero", "half", "Grüße <b>", "three")
    page.publish('<i hx-swap-oob="afterend:#item-zero"><li id="item-after">after</li></i>')
    page.publish('<i data-hx-swap-oob="beforebegin:#item-zero"><li id="item-before">before</li></i>')
    page.shows("before", "zero", "after", "half", "Grüße <b>", "three")
    page.publish(into_list("innerHTML", item("three"), item("new")), item("new", words=' hx-swap-oob="none"'))
    page.shows("three", "new")
    page.publish('<ul id="list" data-count="9"></ul>', '<tr id="row-1"><td>changed</td></tr>')
    page.shows()
    page.browser.until(lambda: page.browser.text("#row-1") == "changed", "the second message")
    page.publish('<tbody id="rows" hx-swap-oob="beforeend"><tr id="row-2"><td>two</td></tr></tbody>')
    page.browser.until(lambda: page.browser.text("#rows") == "changed\ntwo", "a row of a table")


def test_what_comes_again_changes_nothing(page):
    """A message may be in the page already, when it was rendered after it."""
    page.items("one", "two")
    page.open()
    page.publish(into_list("beforeend", item("two", "TWO"), item("three")), into_list("afterbegin", item("three")))
    page.publish(into_list("beforeend", item("end")))
    page.shows("one", "TWO", "three", "end")


def test_an_element_moves_from_one_list_to_another(page):
    page.items("one", "two")
    page.open()
    for _ in range(2):  # it may come again
        page.publish('<p id="aside" hx-swap-oob="beforeend"><b id="item-one">moved</b></p>')
    page.shows("two")
    page.browser.until(lambda: page.browser.text("#aside") == "moved", "it is there once")


def test_what_is_wrong_or_for_another_page_does_no_harm(page):
    page.items("one")
    page.open()
    wrong = (
        item("none"),
        "{}",
        "",
        "<li>no id</li>",
        item("one", "x", ' hx-swap-oob="delete:#none"'),
        "just text & more",
    )
    page.publish(*wrong, item("one", "x", ' hx-swap-oob="sideways"') + item("one", "changed"))
    page.shows("changed")
    (line,) = page.browser.console()
    assert "hx-swap-oob: there is no sideways" in line
    page.publish(item("one", "x", ' hx-swap-oob="outerHTML:["'), item("one", "again"))
    page.shows("again")
    assert len(page.browser.console()) == 1


def test_scripts_in_what_arrives_do_not_run(page):
    page.items("one")
    page.open()
    script = "<script>window.ran = true</script><script src='/test/live/none.js'></script>"
    handler = "<img src='/none' onerror='window.ran = true' alt=''>"
    page.publish(item("one", f"{script}{handler}shown"))
    page.browser.until(lambda: page.browser.text("#item-one") == "shown", "the text")
    page.publish(item("one", "later"))
    page.shows("later")
    page.redis.set(f"test:live:{page.facility}", json.dumps(["one"]))
    assert not page.run("return window.ran")
    lines = page.browser.console()
    assert any("Content Security Policy" in line for line in lines)  # of the handler; it would run without the policy
    assert not any("none.js" in line for line in lines)


def test_what_is_equal_stays_and_so_do_the_focus_and_what_is_being_written(page):
    page.items("one", "two", "three")
    page.open()
    page.run("""
        window.kept = [...document.querySelectorAll("#list > li")];
        document.getElementById("note").value = "";
    """)
    page.browser.find("#note").send_keys("I am writing")
    page.publish('<ul id="list" data-count="4">' + item("new") + item("three") + item("one", "ONE") + "</ul>")
    page.shows("new", "three", "ONE")
    same = "return [document.getElementById('item-three') === kept[2], document.getElementById('item-one') === kept[0]]"
    assert page.run(same) == [True, True]
    assert page.browser.find("#list").get_attribute("data-count") == "4"
    page.publish('<input id="note" name="note" value="of the server" class="changed">')
    page.browser.until(lambda: page.browser.find("#note").get_attribute("class") == "changed", "the field")
    assert page.browser.has_focus("#note")
    assert page.browser.find("#note").get_property("value") == "I am writing"
    page.publish('<ul id="list">' + item("one", '<button id="b">press</button>') + "</ul>")
    page.browser.until(lambda: page.browser.find("#b"), "a button")
    page.run("document.getElementById('b').focus()")
    page.publish(
        item("one", words=' hx-swap-oob="delete"') + into_list("beforeend", item("1", '<button id="b">go</button>'))
    )
    page.browser.until(lambda: page.browser.text("#b") == "go", "another button")
    assert page.browser.has_focus("#b")
    page.publish('<input id="note" name="note" value="of the server">')
    page.browser.until(lambda: page.browser.find("#note").get_property("value") == "of the server", "nobody writes it")


def test_a_box_shows_what_the_server_says_whatever_was_pressed_before(page):
    page.items("one")
    page.open()
    page.publish(item("one", '<input type="checkbox" id="box">'))
    page.browser.press("#box")
    page.publish(item("one", '<input type="checkbox" id="box" class="x">'))
    page.browser.until(lambda: not page.browser.find("#box").is_selected(), "the box")
    page.publish(item("one", '<input type="checkbox" id="box" checked>'))
    page.browser.until(lambda: page.browser.find("#box").is_selected(), "the box")
    assert page.browser.has_focus("#box")


# --- nothing is missed ------------------------------------------------------------------------------------------------


def test_what_is_published_while_the_page_is_rendered_arrives(page):
    page.items("one")
    page.open("?during=" + '%3Cli id="item-one"%3Emeanwhile%3C/li%3E')
    page.shows("meanwhile")
    assert page.loads() == 1  # of the part without a history, at its first connect


def test_what_was_published_in_an_interruption_arrives_without_loading_anything(page):
    page.items("one", "two")
    page.open()
    page.browser.until(lambda: page.loads() == 1, "the part without a history")
    page.run("document.getElementById('second').remove()")
    page.away(item("one", "ONE"), item("two", words=' hx-swap-oob="delete"'), into_list("beforeend", item("three")))
    page.shows("ONE", "three")
    page.connected()
    assert page.loads() == 1


def test_what_is_lost_for_good_is_loaded(page):
    page.items("one", "two")
    page.open()
    page.run("window.kept = document.getElementById('item-two')")
    page.items("two", "six")
    page.away(*(item("one", f"missed {number}") for number in range(SIZE + 1)))
    page.shows("two", "six")
    page.connected()
    assert page.run("return document.getElementById('item-two') === kept")
    page.browser.until(lambda: not page.run("return document.querySelectorAll('[data-stale]').length"), "it is current")
    page.publish(item("six", "live again"))
    page.shows("two", "live again")


def test_a_part_without_a_history_is_loaded_whenever_it_connects(page):
    page.items("one")
    page.facility += "-no"
    page.items("before")
    page.open()
    page.shows("before")
    page.browser.until(lambda: page.loads() == 2, "both parts of the page")
    page.items("after")
    page.away()
    page.shows("after")


def test_a_server_that_is_busy_is_asked_again_and_what_arrives_meanwhile_counts(page):
    page.items("one")
    page.open()
    busy = f"test:live:{page.facility}:status"
    page.redis.set(busy, 503)
    page.items("one", "two")
    page.away(*(item("one", f"missed {number}") for number in range(SIZE + 1)))
    stale = "return document.querySelector('wsloop-live').dataset.stale"
    page.browser.until(lambda: page.run(stale) == "" and page.loads() >= 3, "attempts")
    page.publish(item("one", "newer than the page"))
    page.shows("newer than the page")
    page.redis.delete(busy)
    page.browser.until(lambda: "two" in page.shown(), "it is loaded")
    lines = page.browser.console()
    assert any("status 503" in line and "could not be loaded again" in line for line in lines)


def test_a_page_that_has_the_part_no_more_stays_marked(page):
    page.items("one")
    page.open()
    page.redis.set(f"test:live:{page.facility}:gone", 1)
    page.away(*(item("one", f"missed {number}") for number in range(SIZE + 1)))
    said = []

    def says():
        said.extend(page.browser.console())
        return any(f"has no live-{page.facility}-broadcast any more" in line for line in said)

    page.browser.until(says, "a warning")
    assert page.run("return document.querySelector('wsloop-live').hasAttribute('data-stale')")
    page.publish(item("one", "still live"))
    page.shows("still live")


# --- parts of a page --------------------------------------------------------------------------------------------------


def test_each_part_has_its_socket_until_it_leaves_the_page(page):
    page.items("one")
    page.open()
    urls = page.run("return sockets.map(({ url }) => new URL(url).pathname + new URL(url).search.split('&resume')[0])")
    assert urls == [f"/ws/{page.facility}?subscribe-broadcast", f"/ws/{page.facility}-no?subscribe-broadcast"]
    page.site.publish(f"{page.facility}-no", '<p id="elsewhere">arrived</p>', broadcast=True)
    page.browser.until(lambda: page.browser.text("#elsewhere") == "arrived", "the other part")
    page.run("document.getElementById('second').remove()")
    page.browser.until(lambda: page.run("return sockets[1].readyState") == WebSocket.CLOSED, "its socket is closed")
    assert page.run("return sockets[0].readyState") == WebSocket.OPEN


class WebSocket:
    OPEN, CLOSED = 1, 3


def test_a_part_that_moves_goes_on_where_it_was(page):
    page.items("one")
    page.open()
    page.publish(item("one", "first"))
    page.shows("first")
    page.run("document.body.append(document.querySelector('wsloop-live'))")
    page.publish(item("one", "second"))
    page.shows("second")
    assert page.run("return sockets.filter(({ url }) => url.includes('resume=')).length") == 2


def test_two_parts_with_the_same_id_are_reported(page):
    page.items("one")
    page.open()
    page.run("document.body.append(document.querySelector('wsloop-live').cloneNode(true))")
    said = []
    page.browser.until(lambda: said.extend(page.browser.console()) or said, "an error")
    assert f"two elements have the id live-{page.facility}-broadcast" in said[0]


# --- htmx -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def htmx(page):
    for script in ("htmx.org/dist/htmx.min.js", "htmx-ext-ws/dist/ws.min.js", "htmx-ext-sse/dist/sse.min.js"):
        if not (ROOT / "node_modules" / script).exists():
            missing("node_modules is not installed (make lint)")
    return page


def order(name, state, words=""):
    return f'<li id="order-{name}"{words}>{name}: {state}</li>'


@pytest.fixture
def orders(htmx):
    """The pages of the guide, opened by john: ``orders(version)`` returns the page, and what publishes and looks."""
    page = htmx
    page.facility = "orders"

    def opened(version):
        page.items("one", "two")
        page.browser.site = types.SimpleNamespace(url=page.url, login=page.site.login)
        page.browser.sign_in("john")
        page.browser.driver.get(f"{page.url}/test/live/htmx/{version}/")

        def publish(*html):
            page.site.publish("orders", *html, users=["john"], expire=0)

        def shows(*texts):
            script = "return [...document.querySelectorAll('#orders > li')].map((row) => row.textContent)"
            try:
                page.browser.until(lambda: page.run(script) == list(texts), texts)
            except Exception:
                raise AssertionError(f"expected {texts}, the page shows {page.run(script)}") from None

        return page, publish, shows

    return opened


@pytest.mark.parametrize("version", ["2", "4"])
def test_the_same_html_with_htmx_and_its_extension_for_websockets(orders, version):
    page, publish, shows = orders(version)
    page.browser.until(lambda: page.run("return sockets[0]?.readyState") == WebSocket.OPEN, "htmx is connected")
    shows("one: listed", "two: listed")  # it has fetched the list, because the socket is open
    publish(order("one", "paid", ' hx-swap-oob="true"'))
    publish('<ul id="orders" hx-swap-oob="beforeend">' + order("three", "new") + "</ul>")
    shows("one: paid", "two: listed", "three: new")
    publish('<ul id="orders" hx-swap-oob="afterbegin">' + order("zero", "new") + "</ul>")
    publish('<li id="order-two" hx-swap-oob="delete"></li>')
    shows("zero: new", "one: paid", "three: new")
    # It has no recovery: the list is loaded whenever the socket opens.
    page.items("later")
    page.was_away = True
    page.proxy.cut()
    shows("later: listed")


@pytest.mark.parametrize("version", ["sse-2", "sse-4"])
def test_the_same_html_with_htmx_and_its_extension_for_events(orders, version):
    """It recovers: nothing is loaded until messages are lost for good."""
    page, publish, shows = orders(version)
    publish(order("one", "paid", ' hx-swap-oob="true"'))
    publish('<ul id="orders" hx-swap-oob="beforeend">' + order("three", "new") + "</ul>")
    shows("one: paid", "two: new", "three: new")

    def away(*html):
        page.was_away = True
        page.proxy.stall()
        page.proxy.cut()
        publish(*html)
        page.proxy.go()

    away('<li id="order-two" hx-swap-oob="delete"></li>', order("one", "missed", ' hx-swap-oob="true"'))
    shows("one: missed", "three: new")
    page.items("one", "later")
    away(*(order("one", f"missed {number}", ' hx-swap-oob="true"') for number in range(SIZE + 1)))
    shows("one: listed", "later: listed")
    assert page.run("return sockets.length") == 0


def test_the_guide(browser, sample, redis_client):
    """Its page, its templates and its line of code, published by a shell."""
    redis_client.set("test:live:orders", json.dumps(["7", "8"]))
    browser.sign_in("john")
    browser.open("/test/live/guide/")
    browser.until(lambda: browser.find("wsloop-live").get_attribute("data-state") == "connected", "it is live")
    assert browser.text("#orders") == "7: new\n8: new"
    line = snippet("publish")
    code = "import types\n"
    for pk, template in ((7, "_row"), (9, "_added"), (8, "_removed")):
        code += f"order = types.SimpleNamespace(pk={pk}, number={pk}, state='<paid>', customer='john')\n"
        code += line.replace("_row", template)
    sample.manage("shell", "-c", code)
    browser.until(lambda: browser.text("#orders") == "7: <paid>\n9: <paid>", "what was published")


def test_the_policy_of_the_guide_lets_nobody_publish():
    names = {}
    exec(snippet("policy"), names)
    asked = [
        f"{verb}-{each}" for verb in ("subscribe", "publish") for each in ("broadcast", "user", "group", "session")
    ]
    for user, allowed in (
        (None, ["subscribe-broadcast"]),
        (types.SimpleNamespace(is_authenticated=False), ["subscribe-broadcast"]),
        (types.SimpleNamespace(is_authenticated=True), ["subscribe-broadcast", "subscribe-user", "subscribe-group"]),
    ):
        assert names["allowed_channels"](types.SimpleNamespace(user=user), asked) == allowed


SINGLE_PAGE = """
const [name, what, ...all] = arguments;
const done = all.pop();
import(`/test/live/script/${name}.js`).then((module) => module[what](...all)).then(
  (found) => done(found instanceof Response ? found.status : found ?? null),
  (error) => done(`refused: ${error.message}`),
);
"""


def test_a_single_page_application_misses_nothing_and_may_post(browser, sample, redis_client):
    """The scripts of its guide. The order is paid between the answer with the orders and the socket."""
    run = browser.driver.execute_async_script
    redis_client.set("test:live:orders", json.dumps(["7"]))
    browser.open("/")
    assert run(SINGLE_PAGE, "orders", "start").startswith("refused: This site does not allow you")
    assert ["403" in line for line in browser.console()] == [True]
    browser.sign_in("john")
    browser.open("/")
    browser.driver.execute_script("""
        window.arrived = [];
        const set = Map.prototype.set;
        Map.prototype.set = function (key, value) {
          if (value?.state) arrived.push(value.state);
          return set.call(this, key, value);
        };
    """)
    token = run(SINGLE_PAGE, "orders", "start")
    browser.until(
        lambda: browser.driver.execute_script("return arrived") == ["new", "paid"], "the order and its change"
    )
    assert run(SINGLE_PAGE, "post", "post", "/send/", {}, "wrong" * 13) == 403
    assert run(SINGLE_PAGE, "post", "post", "/send/", {}, token) == 200  # the form is shown again: it was understood
    assert ["403" in line for line in browser.console()] == [True]


def test_attributes_of_htmx_in_what_arrives_work(htmx):
    page = htmx
    page.items("one")
    page.open()
    loaded = """
        const [done] = arguments;
        const script = document.createElement("script");
        script.onload = done;
        script.src = "/test/live/node/htmx.org/dist/htmx.min.js";
        const config = document.createElement("meta");
        Object.assign(config, { name: "htmx-config", content: '{"includeIndicatorCSS": false}' });
        document.head.append(config, script);
    """
    page.browser.driver.execute_async_script(loaded)
    url = f"/test/live/items/{page.facility}/"
    page.publish(item("one", f'<button hx-get="{url}" hx-target="#list" hx-swap="outerHTML" id="more">more</button>'))
    page.browser.until(lambda: page.browser.find("#more"), "a button")
    page.items("fetched", "by htmx")
    page.browser.press("#more")
    page.shows("fetched", "by htmx")


# --- the sample's list of tasks ---------------------------------------------------------------------------------------

TEXTS = "return [...document.querySelectorAll('.task')].map((task) => [task.querySelector('.task-text').textContent, "
TEXTS += "task.classList.contains('done')])"


def tasks(browser):
    return [tuple(each) for each in browser.driver.execute_script(TEXTS)]


def remove_all(site):
    site.manage("shell", "-c", "from chat.models import Task\nfor task in Task.objects.all(): task.delete()")


def open_tasks(browser):
    browser.open("/tasks/")
    browser.until(lambda: browser.text(".state") == "connected", "the list is live")


@pytest.fixture
def empty(sample, browser):
    remove_all(sample)


def test_what_one_does_all_see(browser, other, sample, empty):
    browser.sign_in("john")
    for each in (browser, other):  # the other one is a visitor
        open_tasks(each)
    assert "Nothing is left to do." in other.text("main")
    browser.send("Buy <b>milk</b>")
    for each in (browser, other):
        each.until(lambda each=each: tasks(each) == [("Buy <b>milk</b>", False)], "the task")
    browser.until(lambda: browser.text(".task-form [data-status]") == "Added.", "the form says so")
    assert browser.find("[name=message]").get_property("value") == ""
    browser.tab_to(".task-remove")
    browser.keys(Keys.SHIFT, Keys.TAB)
    browser.driver.execute_script("window.isStillTheSamePage = true")
    browser.press(".task-check")
    for each in (browser, other):
        each.until(lambda each=each: tasks(each) == [("Buy <b>milk</b>", True)], "it is done")
    assert browser.has_focus(".task-check[aria-pressed=true]")
    sample.manage("shell", "-c", "from chat.models import Task; Task.objects.create(text='From a shell')")
    for each in (browser, other):
        each.until(lambda each=each: len(tasks(each)) == 2, "that of the shell")
    browser.press(".task-remove")
    for each in (browser, other):
        each.until(lambda each=each: tasks(each) == [("From a shell", False)], "it is gone")
    assert browser.driver.execute_script("return window.isStillTheSamePage")
    other.press(".task-check")
    other.until(lambda: "/accounts/login/?next=/tasks/" in other.driver.current_url, "a visitor has to sign in")


def test_the_list_of_a_page_that_was_offline(serve, browser):
    site = serve()
    browser.reset(site)
    remove_all(site)
    open_tasks(browser)
    stopped(site)
    browser.until(lambda: browser.text(".state") == "reconnecting", "the page has noticed")
    site.manage("shell", "-c", "from chat.models import Task; Task.objects.create(text='Meanwhile')")
    site.start()
    browser.driver.execute_script("window.dispatchEvent(new Event('online'))")
    browser.until(lambda: tasks(browser) == [("Meanwhile", False)], "what it has missed")
    browser.console()


def test_the_list_says_when_its_user_has_signed_out(browser, empty):
    browser.sign_in("john")
    open_tasks(browser)
    browser.sign_out_in_another_tab()
    browser.until(lambda: "offline" in browser.text(".state"), "the list says so")


def test_the_list_without_scripts(browser, empty):
    browser.scripts(False)
    browser.sign_in("john")
    browser.open("/tasks/")
    assert "Live updates need JavaScript" in browser.text("main")
    browser.send("As a plain form")
    browser.until(lambda: tasks_without_scripts(browser) == ["As a plain form"], "the task")
    browser.press(".task-check")
    browser.until(lambda: browser.driver.find_elements(By.CSS_SELECTOR, ".task.done"), "it is done")
    browser.press(".task-remove")
    browser.until(lambda: tasks_without_scripts(browser) == [], "it is gone")


def tasks_without_scripts(browser):
    return [each.text for each in browser.driver.find_elements(By.CSS_SELECTOR, ".task-text")]


def test_the_list_on_a_phone_and_in_the_dark(browser, empty):
    browser.sign_in("john")
    browser.width(PHONE)
    open_tasks(browser)
    for text in ("x" * 200, "Buy milk"):
        browser.send(text)
        browser.until(lambda text=text: text in dict(tasks(browser)), "the task")
    browser.press(".task-check")
    browser.until(lambda: tasks(browser)[0][1], "it is done")
    assert browser.driver.execute_script("return document.documentElement.scrollWidth") == PHONE
    assert browser.hard_to_read() == []

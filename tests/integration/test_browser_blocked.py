"""A network whose proxy lets no WebSocket through, in a real browser: streams of events, POST, and the way back."""

import pytest

from testbed.cutting_proxy import CuttingProxy
from testbed.processes import ROOT
from tests.docs.test_docs import code_blocks
from tests.integration.test_browser import browser, clean, sample, started_browsers

__all__ = ["browser", "clean", "sample", "started_browsers"]  # fixtures

GUIDE = ROOT / "docs/how-to/blocked-networks.rst"
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SPY = """
window.opened = 0;
window.WebSocket = class extends WebSocket {
  constructor(...all) {
    super(...all);
    this.addEventListener("open", () => (opened += 1));
  }
};
window.fetches = [];
window.fetch = ((fetch) => (url, options) => {
  fetches.push(`${options?.method ?? "GET"} ${options?.headers?.Accept}`);
  return fetch(url, options);
})(window.fetch);
"""
START = """
const [facilities, { accessToken: secret } = {}] = arguments;
const done = arguments[arguments.length - 1];
const module = performance.getEntriesByType("resource").find(({ name }) => name.includes("/wsloop/wsloop."));
window.told = [];
const random = () => 0.001; // pauses of milliseconds; WebSockets are tried again after 0.3 s
import(module.name).then(({ connect, open }) => {
  window.socket = open("/ws/", { random, ...(secret && { accessToken: () => secret }) });
  window.subscribe = (facility) =>
    socket.subscribe(facility, {
      audiences: ["user"],
      publish: ["user"],
      queue: { most: 10, seconds: 60 },
      onMessage: ({ data }) => told.push([facility, data]),
      onLost: () => told.push([facility, "lost"]),
    });
  window.lines = facilities.map(subscribe);
  window.single = connect(`/ws/${facilities[0]}?subscribe-broadcast&publish-broadcast`, {
    random,
    onMessage: ({ data }) => told.push(["single", data]),
    onLost: () => told.push(["single", "lost"]),
  });
  done();
}, (error) => done(String(error)));
"""
ASK = """
const [done] = arguments;
Promise.all([lines[0].history({ limit: 1 }), socket.call("GET", "/").catch(({ code }) => code)]).then(
  ([{ messages }, called]) => done([messages[0].data, called]),
  (error) => done(String(error)),
);
"""


class BlockingProxy(CuttingProxy):
    """A network whose proxy refuses WebSockets while ``blocks`` is true."""

    blocks = True

    def asking(self, client, data):
        if not (self.blocks and b"\r\nUpgrade: websocket\r\n" in data):
            return data
        client.transport.write(REFUSAL)
        client.transport.close()
        return b""


@pytest.fixture
def site(shared_serve):
    """Everything is allowed, and every facility has a history."""
    return shared_serve(settings={"WSLOOP": {"FACILITIES": {"*": {"size": 100, "presence": True}}}})


@pytest.fixture
def proxy(site):
    with BlockingProxy(site.port) as proxy:
        yield proxy


@pytest.fixture
def page(browser, site, proxy):
    """A page of the sample that was opened through the proxy, by john."""
    browser.reset(site)
    browser.sign_in("john")
    spy = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SPY})
    browser.driver.get(f"http://127.0.0.1:{proxy.port}/broadcast/")
    yield browser
    browser.driver.get("about:blank")  # before its line ends
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", spy)
    browser.console()  # Chromium's notes about attempts that failed


def test_the_client_works_without_websockets_and_goes_back_to_them(page, site, proxy, facility):
    do, run = page.driver.execute_script, page.driver.execute_async_script
    other, later = f"{facility}-other", f"{facility}-later"
    expected = []

    def shows(*entries):
        expected.extend(entries)
        try:
            page.until(lambda: sorted(do("return told")) == sorted(map(list, expected)), "messages")
        except Exception:
            raise AssertionError(f"expected {expected}, the page has {do('return told')}") from None

    def connected():
        states = "return [...lines, single].map(({ state }) => state.name)"
        page.until(lambda: set(do(states)) == {"connected"}, "all are connected")

    assert run(START, [facility, other], {}) is None
    connected()
    assert do("return opened") == 0
    assert "POST text/event-stream" in do("return fetches")
    site.publish(facility, "1", users=["john"])
    site.publish(other, "2", users=["john"])
    site.publish(facility, "3", broadcast=True)
    shows((facility, "1"), (other, "2"), ("single", "3"))

    # Publishing, the past, and calls.
    for line in ("lines[0]", "single"):
        answer = run(f"const [done] = arguments; {line}.publish('mine').then(done, (error) => done(error.code))")
        assert answer is None
    shows((facility, "mine"), ("single", "mine"))
    assert run(ASK) == ["mine", "refused"]

    # Another subscription, while messages come.
    do("lines.push(subscribe(arguments[0]))", later)
    for number in range(20):
        site.publish(facility, f"meanwhile {number}", users=["john"])
    connected()
    site.publish(later, "4", users=["john"])
    shows(*[(facility, f"meanwhile {number}") for number in range(20)], (later, "4"))

    # A break.
    proxy.stall()
    proxy.cut()
    site.publish(other, "missed 1", users=["john"])
    site.publish(facility, "missed 2", broadcast=True)
    do("window.published = lines[1].publish('in the tunnel')")
    proxy.go()
    shows((other, "missed 1"), ("single", "missed 2"), (other, "in the tunnel"))
    connected()
    assert do("return opened") == 0

    # The network lets WebSockets through.
    proxy.blocks = False
    page.until(lambda: do("return opened") >= 2, "WebSockets")
    for number in range(20):
        site.publish(facility, f"back {number}", users=["john"])
    shows(*[(facility, f"back {number}") for number in range(20)])
    page.until(lambda: do("return socket.state.name") == "connected", "the socket")
    said = []

    def posted():
        """Whether what is published now is posted."""
        before = do("return fetches.length")
        said.append((facility, f"said {len(said)}"))
        run("lines[0].publish(arguments[0]).then(arguments[1])", said[-1][1])
        return do("return fetches.length") > before

    page.until(lambda: not posted(), "it is sent over the WebSocket")
    site.publish(facility, "the end", users=["john"])
    shows(*said, (facility, "the end"))
    assert [each for each in do("return told") if each[1] == "lost"] == []


def test_a_token_signs_in_without_a_websocket(page, site, facility):
    """That of mary, in the browser of john."""
    code = "from wsloop import tokens; from django.contrib.auth.models import User; "
    code += "print(tokens.make(User.objects.get(username='mary')))"
    token = site.manage("shell", "-c", code).split()[-1]
    site.mark_log()
    do, run = page.driver.execute_script, page.driver.execute_async_script
    assert run(START, [facility], {"accessToken": token}) is None
    page.until(lambda: do("return lines[0].state.name") == "connected", "it is connected")
    site.publish(facility, "for mary", users=["mary"])
    run("lines[0].publish('from mary').then(arguments[0])")
    site.publish(facility, "for john", users=["john"])
    site.publish(facility, "the end", users=["mary"])
    told = [[facility, text] for text in ("for mary", "from mary", "the end")]
    page.until(lambda: do("return told") == told, f"messages: {do('return told')}")
    assert do("return opened") == 0
    assert token not in site.log_since_mark()


def test_the_script_of_the_guide_without_the_client(page, site, proxy):
    (script,) = [code for code in code_blocks(GUIDE, "javascript") if "EventSource" in code]
    do = page.driver.execute_script
    do(f"window.told = []; console.log = (...all) => told.push(all.join(' ')); {script} window.source = source;")
    page.until(lambda: do("return source.readyState") == 1, "the stream")
    site.publish("news", "Hello", broadcast=True)
    page.until(lambda: do("return told.at(-1)") == "Hello", "the message")
    proxy.stall()
    proxy.cut()
    site.publish("news", "missed", broadcast=True)
    proxy.go()
    page.until(lambda: do("return told.at(-1)") == "missed", "what was missed")
    page.sign_out_in_another_tab()
    page.until(lambda: do("return source.readyState") == 2, "the end with the session")
    assert do("return told.at(-1)") == "closed: signed out"


def test_a_page_of_the_sample_needs_no_websocket(page, site):
    """The client's own pauses, its own policy for scripts, and the names with hashes of the static files."""
    page.connected()
    site.publish("news", "without a WebSocket", broadcast=True)
    page.until(lambda: "without a WebSocket" in [entry[-1] for entry in page.messages()], "the message")
    assert page.driver.execute_script("return opened") == 0

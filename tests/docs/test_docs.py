"""The documentation says what is true: its code runs, its tables name what exists, its links lead somewhere."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import types
from http import HTTPStatus
from pathlib import Path

import docutils.core
import docutils.nodes
import docutils.utils
import pytest
import websocket
from django.core.signals import setting_changed
from websockets.frames import CloseCode

from testbed.cutting_proxy import CuttingProxy
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.integration.envelopes import V1
from tests.requires import need
from tests.unit.test_imports import PACKAGES
from wsloop.protocol.close_codes import CLOSE_CODES

PAGES = [ROOT / "README.rst", ROOT / "CHANGELOG.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
# What Sphinx makes of docstrings is tested by test_site.py.
PAGES = [page for page in PAGES if not str(page.relative_to(ROOT)).startswith("docs/reference/python")]


def document(page):
    """Return the parsed page; any problem of its markup raises."""
    settings = {"report_level": 2, "halt_level": 2, "input_encoding": "utf-8", "file_insertion_enabled": False}
    return docutils.core.publish_doctree(page.read_text(), str(page), settings_overrides=settings)


def code_blocks(page, language):
    return [
        block.astext()
        for block in document(page).findall(docutils.nodes.literal_block)
        if language in block.get("classes", [])
    ]


def run(command, **options):
    """Run a command that must succeed and return what it printed."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert result.returncode == 0, f"{command}:\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_valid_and_its_links_lead_to_files(page):
    for reference in document(page).findall(docutils.nodes.reference):
        target = reference.get("refuri", "")
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_pages_compiles(page):
    for code in code_blocks(page, "python"):
        compile(code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_javascript_in_the_pages_is_understood(page, tmp_path):
    for number, code in enumerate(code_blocks(page, "javascript")):
        module = tmp_path / f"{number}.mjs"
        module.write_text(code)
        run([need("node"), "--check", module])


# A browser in which everything exists, and a server that accepts everything, and sends each subscription one message.
# Then each event happens that a page listens to, the server answers what it is asked, and the user signs out.
BROWSER = """
const handlers = [];
const anything = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => "anything" : anything),
  apply: (_, self, parameters) => {
    handlers.push(...parameters.filter((each) => typeof each === "function"));
    return anything;
  },
});
const answer = Object.assign([{ id: 1, state: "new" }], { token: "TOKEN" });
let fetched = 0;
Object.assign(globalThis, {
  document: anything,
  CSS: anything,
  FormData: class { get = () => "a text"; },
  location: { href: "https://site.test/page/", reload: () => console.log("reloaded") },
  fetch: async () => ({ ok: true, status: fetched++ ? 403 : 200, json: async () => answer }),
  WebSocket: class {
    readyState = 1;
    constructor(url) {
      console.log("opened", url);
      const facility = new URL(url).pathname.split("/")[2];
      setTimeout(() => {
        this.onopen();
        this.says({ type: "welcome", facility, subscribed: [], recovered: null, ping: 30 });
        if (facility) this.greets(facility);
      });
    }
    says(frame) { this.onmessage?.({ data: JSON.stringify(frame) }); }
    greets(facility) {
      const data = JSON.stringify({ id: 7, order: 7, state: "paid" });
      this.says({ type: "message", facility, audience: "user", data });
      for (const handler of handlers.splice(0)) handler(anything);
      setTimeout(() => this.onclose?.({ code: 4001, reason: "" }), 300);
    }
    send(text) {
      console.log("sent", text);
      const { type, id, facility } = text.startsWith("{") ? JSON.parse(text) : {};
      setTimeout(() => {
        if (type === "subscribe") {
          this.says({ type: "welcome", id, facility, subscribed: [], recovered: null });
          this.greets(facility);
        }
        if (type === "publish") this.says({ type: "ack", id });
        const messages = [{ audience: "user", data: "earlier" }];
        if (type === "history") this.says({ type, id, messages, before: null });
        if (type === "call") this.says({ type: "answer", id, status: 201, data: "answered" });
      });
    }
    close() {}
  },
});
"""
REACT = "export const useEffect = (start) => start(), useState = (value) => [value, () => {}];"


def test_javascript_of_the_page_of_the_client_runs(tmp_path):
    """Run each block of the page as it stands, in Node with a browser and a server that are made up."""
    (tmp_path / "node_modules/react").mkdir(parents=True)
    (tmp_path / "node_modules/react/index.mjs").write_text(REACT)
    (tmp_path / "node_modules/react/package.json").write_text('{"main": "index.mjs"}')
    (tmp_path / "node_modules/wsloop").symlink_to(ROOT)
    (tmp_path / "wsloop").symlink_to(ROOT / "wsloop/static/wsloop")
    (tmp_path / "js").mkdir()
    (tmp_path / "browser.mjs").write_text(BROWSER)
    done = []
    for number, code in enumerate(code_blocks(ROOT / "docs/how-to/javascript.rst", "javascript")):
        uses = 'useMessages("/ws/a");' if "function useMessages" in code else ""
        (tmp_path / f"js/{number}.mjs").write_text(f"{code}\n{uses}\n")
        output = run([need("node"), "--import", tmp_path / "browser.mjs", tmp_path / f"js/{number}.mjs"])
        assert re.search(r"opened wss://site\.(test|example)/ws/", output) or "connect(" not in code, code
        done.append(output)
    outputs = "".join(done)
    for said in (
        '"type":"subscribe","facility":"chat","audiences":["user","broadcast"],"publish":["broadcast"],"presence":true',
        '"type":"publish","data":"Said in a tunnel","key":',
        '"type":"publish","data":"a text"',
        "[ 'earlier' ] false",
        "201 answered",
        "[ { id: 1, state: 'new' }, { id: 7, order: 7, state: 'paid' } ]",
        "reloaded",
    ):
        assert said in outputs, said


def test_names_that_the_page_of_the_client_imports_are_exported():
    module = (ROOT / "wsloop/static/wsloop/wsloop.js").read_text()
    exported = set(re.findall(r"^export (?:function|const|class) (\w+)", module, re.MULTILINE))
    page = (ROOT / "docs/how-to/javascript.rst").read_text()
    imported = {name for names in re.findall(r'import \{ (.+) \} from ".*wsloop', page) for name in names.split(", ")}
    assert imported and imported <= exported
    own = set(re.findall(r'(?:new RequestError\(|type: "error", code: )"(\w+)"', module))
    codes = own | {"refused", "unavailable", "frame", "internal"}
    assert {row[0] for row in rows(ROOT / "docs/how-to/javascript.rst", "code")} == codes
    assert {row[0] for row in rows(ROOT / "docs/how-to/javascript.rst", "name")} == set(
        re.findall(r'\{name: "(\w+)"', module)
    )


def test_script_of_the_readme_receives_its_message(site):
    """Run the script of "The same from a script" as it stands, but for the address."""
    (script,) = [code for code in code_blocks(ROOT / "README.rst", "python") if "create_connection" in code]
    output = run([sys.executable, "-c", script.replace("127.0.0.1:8000", site.host)])
    assert re.search(r"^received: Hello from a script", output, re.MULTILINE)


def test_commands_of_blocked_networks_receive_and_publish(site, tmp_path):
    need("curl")
    (console,) = code_blocks(ROOT / "docs/how-to/blocked-networks.rst", "console")
    receive, publish = console.replace("127.0.0.1:8000", site.host).removeprefix("$ ").split("\n$ ")
    client = Process(["sh", "-c", f"exec {receive}"], tmp_path / "log")
    try:

        def arrives():
            assert run(["sh", "-c", publish]).endswith('{"type": "ack", "id": 1}')
            return "data: Hello\n\n" in client.log()

        wait_until(arrives, what=f"the message\n{client.log()}")
    finally:
        client.stop()


def test_script_of_recover_gets_what_it_has_missed(serve, facility, tmp_path):
    """Run the script as it stands, but for its URL, and cut its line: it misses nothing, or says so."""
    page = ROOT / "docs/how-to/recover.rst"
    (script,) = [code for code in code_blocks(page, "python") if "create_connection" in code]
    site = serve(settings={"WSLOOP": {"FACILITIES": {facility: {"size": 5}}}})
    with CuttingProxy(site.port) as proxy:
        script = script.replace("127.0.0.1:8000/ws/news", f"127.0.0.1:{proxy.port}/ws/{facility}")
        client = Process([sys.executable, "-u", "-c", script], tmp_path / "log")

        def prints(*lines):
            wait_until(lambda: client.log().endswith("\n".join(lines) + "\n"), what=f"{lines}\n{client.log()}")

        def break_while(*messages):
            proxy.stall()  # it may come back, but gets no answer yet
            proxy.cut()
            site.publish(facility, *messages, broadcast=True)
            proxy.go()

        try:
            prints("connected, recovered: None")
            site.publish(facility, "1", "2", broadcast=True)
            prints("received: 1", "received: 2")
            break_while("3", "4")
            prints("connected, recovered: True", "received: 3", "received: 4")
            break_while(*"123456")
            prints("connected, recovered: False")
            site.publish(facility, "7", broadcast=True)
            prints("connected, recovered: False", "received: 7")
            site.send_signal(signal.SIGTERM)
            wait_until(lambda: "the line is broken" in client.log().rpartition("received: 7")[2], what=client.log())
            assert client.returncode is None
        finally:
            client.stop()


ASK = """
import json
from django import shortcuts
from django.contrib.auth.models import User
from django.test import RequestFactory
shortcuts.render = lambda request, template, context: context
{view}
request = RequestFactory().get("/")
request.user, request.session = User.objects.get(username="john"), None
context = notices(request)
print(json.dumps([context["token"], [text for when, text in context["notices"]]]))
"""


def test_view_of_recover_shows_what_was_published_and_where_the_socket_begins(serve, facility):
    (view,) = [code for code in code_blocks(ROOT / "docs/how-to/recover.rst", "python") if "def notices" in code]
    site = serve(settings={"WSLOOP": {"FACILITIES": {facility: {"size": 50}}}})
    site.publish(facility, *map(str, range(20)), users="john")
    site.publish(facility, "to both", broadcast=True, users="john")
    site.publish(facility, "to mary", users="mary")
    answer = site.manage("shell", "-c", ASK.format(view=view.replace("orders", facility)))
    token, texts = json.loads(answer.splitlines()[-1])
    assert texts == [*map(str, range(1, 20)), "to both"]
    site.publish(facility, "then", broadcast=True)
    path = f"{facility}?subscribe-broadcast&subscribe-user&resume={token}"
    client = site.connect(path, cookies=site.login("john"), subprotocols=["wsloop.v1"])
    assert json.loads(client.next())["recovered"] is True
    assert json.loads(client.next())["data"] == "then"


def rows(page, heading="Key"):
    """Yield the rows of the tables of a page whose first column has this heading, as lists of texts."""
    for table in document(page).findall(docutils.nodes.table):
        texts = [
            [entry.astext() for entry in row.findall(docutils.nodes.entry)] for row in table.findall(docutils.nodes.row)
        ]
        if texts[0][0] == heading:
            yield from texts[1:]


def hops(title):
    """Return the functions that a section of how-it-works lists, in order."""
    page = (ROOT / "docs/explanation/how-it-works.rst").read_text()
    section = page.partition(f"\n{title}\n---")[2].partition("\n---")[0]
    found = re.findall(r"``((?:\w+\.)+\w+)``", section)
    return [name for name in found if name.partition(".")[0] not in ("gevent", "time", "wsloop")]


@pytest.mark.parametrize("title", ["The way of a handshake", "The way of a message"])
def test_the_ways_lead_through_functions_that_exist(title):
    assert len(hops(title)) > 9
    for name in hops(title):
        module = ROOT / "wsloop"
        parts = name.split(".")
        while (module / parts[0]).is_dir():
            module /= parts.pop(0)
        found = ast.parse((module / f"{parts.pop(0)}.py").read_text())
        for part in parts:
            (found,) = [each for each in found.body if getattr(each, "name", None) == part]


def test_every_module_has_its_place_in_how_it_works():
    page = ROOT / "docs/explanation/how-it-works.rst"
    section = page.read_text().partition("Packages and their directions")[2].partition("\nCode for one socket\n---")[0]
    named = set(re.findall(r"``(\w+)/?``", section))
    modules = {path.stem for path in (ROOT / "wsloop").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "wsloop").glob("*/__init__.py")}
    shown = [name for name in PACKAGES if name not in ("testing", "outbox")]
    inner = {path.stem for package in shown for path in (ROOT / "wsloop" / package).glob("*.py")} - {"__init__"}
    assert modules | packages | inner | {"lua", "__init__"} == named
    imports = {row[0].strip("/"): set(row[2].replace(",", " ").split()) - {"none"} for row in rows(page, "Package")}
    # Whatever a package imports, protocol is below all.
    assert {name: PACKAGES[name] - {"protocol"} for name in imports} == {
        name: found - {"protocol"} for name, found in imports.items()
    }


def test_close_codes_are_documented():
    codes = {int(row[0]) for row in rows(ROOT / "docs/reference/websockets.rst", "Code")}
    assert codes == set(CLOSE_CODES)


def sources(besides=None):
    """Return the code of the engine, but for that of one package."""
    paths = sorted((ROOT / "wsloop").rglob("*.py"))
    return "".join(path.read_text() for path in paths if path.parent.name != besides)


def counters():
    """Return the settings whose bounds the engine counts."""
    names = set(re.findall(r'metrics\.reached\("(\w+)"\)', sources()))
    # those of wsloop.sockets.admission.Full
    return names | set(re.findall(r'"(MAX_CONNECTIONS\w*)"', (ROOT / "wsloop/sockets/admission.py").read_text()))


def test_settings_are_documented_with_their_defaults():
    from tests.unit.test_conf import MAY_BE_NONE
    from wsloop.conf import DEFAULTS, PLAIN

    table = list(rows(ROOT / "docs/reference/settings.rst"))
    table += rows(ROOT / "docs/reference/settings.rst", "Setting")
    assert {row[0]: ast.literal_eval(row[1]) for row in table} == DEFAULTS | PLAIN._asdict()
    said = {row[0] for row in table if re.search(r"\bNone:\s", row[2])}
    said |= {name for name in DEFAULTS if name.startswith("MAX_CONNECTIONS")}  # said of all of them, in front
    assert said == MAY_BE_NONE


def test_forms_of_the_connection_are_understood(monkeypatch):
    from wsloop import conf
    from wsloop.backend import redis_options

    forms = [row[0] for row in rows(ROOT / "docs/reference/settings.rst", "Form")]
    assert len(forms) == 6
    for form in forms:
        text = (
            form.replace(", …]", "]")
            .replace('"port": …', '"port": 1')
            .replace('"db": …', '"db": 0')
            .replace("…", "'x'")
        )
        settings = types.SimpleNamespace(WSLOOP={"REDIS": eval(text, {"host": "host", "port": 1})})
        monkeypatch.setattr(conf, "settings", settings)
        setting_changed.send(None, setting="WSLOOP", value=None, enter=True)
        assert redis_options.connection()
        assert bool(redis_options.nodes()) == ("cluster" in form or "nodes" in form)
    monkeypatch.undo()
    setting_changed.send(None, setting="WSLOOP", value=None, enter=False)


def test_bounds_are_documented_with_what_a_client_gets():
    page = ROOT / "docs/reference/settings.rst"
    beyond = {row[0]: row[3] for row in rows(page) if len(row) == 4}
    assert {name for name, what in beyond.items() if what == "error"} == {"MAX_SUBSCRIPTIONS", "CALL_PATHS"}
    assert {name for name, what in beyond.items() if what == "delays"} == {"COMMAND_RATE"}
    numbers = {int(row[0]) for name in ("Status", "Code") for row in rows(ROOT / "docs/reference/websockets.rst", name)}
    assert {int(number) for number in beyond.values() if number not in ("none", "error", "delays")} <= numbers
    uncounted = {"ALLOWED_ORIGINS", "CALL_PATHS", "CLIENTS_MAY_PUBLISH", "METRICS_TOKEN"}
    silent = {"CLOSE_TIMEOUT"}  # the line is cut: there is nobody to tell
    assert {name for name, number in beyond.items() if number != "none"} - uncounted == counters() - silent


def test_counters_are_documented():
    assert {row[0] for row in rows(ROOT / "docs/reference/metrics.rst", "setting")} == counters()


def test_metrics_are_documented_with_their_labels():
    from wsloop.exposition import FAMILIES

    kinds = {family: "histogram" if family.bounds else "gauge" if family.gauge else "counter" for family in FAMILIES}
    expected = {
        f"wsloop_{family.name}{'_total' if kind == 'counter' else ''}": [kind, ", ".join(family.labels)]
        for family, kind in kinds.items()
    }
    expected |= {"wsloop_workers": ["gauge", ""], "wsloop_workers_silent": ["gauge", ""]}
    table = list(rows(ROOT / "docs/reference/metrics.rst", "Metric"))
    assert {row[0]: [row[1], row[2].replace("\n", " ")] for row in table} == expected


def test_the_dashboard_asks_for_metrics_and_labels_that_exist():
    from wsloop.exposition import FAMILIES

    endings = {True: ("_bucket", "_count", "_sum"), False: ("",)}
    labels = {
        f"wsloop_{family.name}{'' if family.bounds or family.gauge else '_total'}{ending}": {*family.labels, "worker"}
        for family in FAMILIES
        for ending in endings[bool(family.bounds)]
    }
    labels |= {"wsloop_workers": set(), "wsloop_workers_silent": set()}
    dashboard = json.loads((ROOT / "docs/reference/grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set()
    for query in queries:
        (name,) = set(re.findall(r"wsloop_\w+", query))
        asked.add(name)
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
        assert grouped <= labels[name] | {"instance", "le"}, query
        assert query.count("(") == query.count(")")
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    unused = {name for name in labels if re.sub("_(bucket|count|sum)$", "", name) not in families}
    assert unused == {"wsloop_blocked_total"}  # the dashboard shows its seconds, and all other numbers
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_aliases_are_documented():
    from wsloop.conf import ALIASES

    assert {row[0]: row[1].strip("`") for row in rows(ROOT / "docs/reference/settings.rst", "Name")} == ALIASES


OLD_NAMES = re.compile(r"WS4REDIS_[A-Z]+|WEBSOCKET_URL")
# Where the settings have their names of ws4redis, and why.
MAY_HAVE_OLD_NAMES = {
    "docs/reference/settings.rst": "the table of aliases",
    "docs/how-to/move-from-ws4redis.rst": "sites that have them",
    "docs/reference/ws4redis-tests.rst": "the tests of ws4redis set them",
    "templates/chat/home.html": "a variable of ws4redis's context processor",
    "project/settings.py": "the same",
    "wsloop/options.py": "the aliases",
    "wsloop/backend/redis_options.py": "passes values on to ws4redis",
}


def test_settings_have_one_name_each_outside_of_what_is_about_ws4redis():
    patterns = ("*.rst", "*.md", "*.py", "docs/**/*.rst", "templates/**/*.html", "static/js/**/*.js")
    patterns += tuple(f"{name}/**/*.{end}" for name in ("chat", "project", "wsloop") for end in ("py", "js", "html"))
    pages = {str(path.relative_to(ROOT)): path for pattern in patterns for path in ROOT.glob(pattern)}
    found = {name for name, path in pages.items() if OLD_NAMES.search(path.read_text())}
    assert found == MAY_HAVE_OLD_NAMES.keys()


def test_environment_is_documented():
    sources = "".join(path.read_text() for path in [*(ROOT / "project").glob("*.py"), ROOT / "uwsgi.ini"])
    names = set(re.findall(r'(?:environ(?:\.get\(|\[)|_on\()"([A-Z_]+)"', sources))
    names |= set(re.findall(r"\$\((\w+)\)", sources))
    names -= {"DJANGO_SETTINGS_MODULE"}
    assert {"REDIS_URL", "DATABASE_URL", "DEMO", "HTTP", "PROCESSES"} <= names
    page = (ROOT / "docs/reference/environment.rst").read_text()
    assert [name for name in sorted(names) if f"``{name}``" not in page] == []


def test_refusals_are_those_of_the_code():
    code = sources(besides="http_api")  # it has a description of its own
    statuses = {HTTPStatus[name].value for name in re.findall(r"HTTPStatus\.([A-Z_]+)\b", code)} - {200}
    assert {int(row[0]) for row in rows(ROOT / "docs/reference/websockets.rst", "Status")} == statuses


def test_close_codes_are_those_of_the_code():
    code = sources()
    codes = {CloseCode[name].value for name in re.findall(r"CloseCode\.([A-Z_]+)\b", code)}
    private = set(re.findall(r"(?:(?:close|fail)\(|code: int = )([A-Z_]+),", code)) | {"REFUSED"}  # of rejection
    codes |= {int(re.search(rf"^{name} = (\d+)", code, re.MULTILINE)[1]) for name in private}
    codes |= {CloseCode.NORMAL_CLOSURE, CloseCode.PROTOCOL_ERROR}  # the library's
    codes -= {CloseCode.ABNORMAL_CLOSURE}  # that there was no close frame
    assert {int(row[0]) for row in rows(ROOT / "docs/reference/websockets.rst", "Code")} == codes


def logged(log):
    """The kinds of lines that the engine writes to ``refusals`` or ``hints``, as far as they are constants."""
    found = set()
    for path in (ROOT / "wsloop").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name, at = getattr(node.func, "id", None), None
            if name == "Refused" and log == "refusals":
                at = next((each.value for each in node.keywords if each.arg == "kind"), ast.Constant("request"))
            elif name == "try_again" and log == "refusals":
                at = node.args[2]
            elif ast.unparse(node.func) == f"{log}.log":
                at = node.args[1]
            if isinstance(at, ast.Constant):
                found.add(at.value)
    return found


def test_troubleshooting_has_every_line_of_the_log_and_every_number():
    page, reference = ROOT / "docs/how-to/troubleshooting.rst", ROOT / "docs/reference/websockets.rst"
    refused, _, mistakes = page.read_text().partition("Lines of the log: ``perhaps a mistake")
    kinds = set(re.findall(r"^``([^`]+)``  ", refused, re.MULTILINE))
    full = {name for name in counters() if name.startswith("MAX_CONNECTIONS")}
    assert kinds == logged("refusals") | full | {"policy, in part"}
    mistakes = mistakes.partition("\nClose codes\n---")[0]
    kinds = set(re.findall(r"^``([^`]+)``  ", mistakes, re.MULTILINE))
    assert kinds == logged("hints") | {"user", "group", "session"}
    for name, others in (("Code", set()), ("Status", {502})):  # the last is of proxies
        numbers = {int(row[0]) for row in rows(page, name)}
        assert numbers == {int(row[0]) for row in rows(reference, name)} | others


@pytest.fixture
def shell(private_redis, tmp_path):
    """Run a command of a page as it stands there, ``redis-cli`` with the Redis of this test."""
    cli = tmp_path / "bin/redis-cli"
    cli.parent.mkdir()
    cli.write_text(f'#!/bin/sh\nexec {need("redis-cli")} -p {private_redis.port} "$@"\n')
    cli.chmod(0o755)
    (tmp_path / "publish.lua").symlink_to(ROOT / "wsloop/backend/lua/publish.lua")
    path = f"{cli.parent}{os.pathsep}{os.environ['PATH']}"

    def execute(block):
        script = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
        return run(["bash", "-ec", script], cwd=tmp_path, env={**os.environ, "PATH": path}).split("\n")[:-1]

    return execute


def test_what_is_in_redis_is_documented(serve, private_redis, facility, shell, tmp_path):
    """Each key has its row with its type, and the examples of the page do to real sockets what it says."""
    page = ROOT / "docs/reference/redis.rst"
    names = {"PREFIX": "ws", "CHANNEL": f"ws:[a-z]+:(\\w+:)?{facility}", "KEY": "order-7-paid", "NAME": facility}
    kinds = {}
    for key, kind, _ in (row for row in rows(page) if row[1] in ("string", "hash", "stream", "zset")):
        pattern = re.escape(key)
        for name, value in names.items():
            pattern = pattern.replace(name, value)
        kinds[pattern] = kind
    options = {"size": 10, "presence": True}
    site = serve(redis=private_redis, settings={"WSLOOP": {"FACILITIES": {facility: options}}})
    cookies = site.login("john")
    client = V1(site, f"{facility}?subscribe-broadcast&subscribe-user", cookies=cookies)
    client.frame("welcome")
    before = client.resume
    plain = site.connect("news?subscribe-broadcast")
    examples = [block.replace("orders", facility) for block in code_blocks(page, "console")]
    published, by_hand, history, notices, requests = examples
    (code,) = code_blocks(page, "python")
    with private_redis.client() as redis:
        reader = redis.pubsub(ignore_subscribe_messages=True)
        reader.subscribe(f"ws:user:john:{facility}")
        assert reader.get_message(timeout=10) is None  # the answer to the command

        assert shell(published) == ["1", "OK"]
        assert [plain.next(), site.connect("news?subscribe-broadcast").next()] == ["Hello, everybody"] * 2

        (tmp_path / "program.py").write_text(code.replace("orders", facility))
        program = [sys.executable, "-I", tmp_path / "program.py", private_redis.url, tmp_path / "publish.lua"]
        assert [run(program) for _ in range(2)] == ["[1, 2]\n", "[-1, -1]\n"]
        assert shell(by_hand) == ["1"]
        site.publish(facility, "again", broadcast=True, users="john")
        late = V1(site, f"{facility}?subscribe-broadcast&subscribe-user", cookies=cookies, resume=before)
        assert late.frame("welcome")["recovered"] is True
        for each in (client, late):
            assert [each.frame("message")["data"] for _ in range(3)] == ["paid", "sent by hand", "again"]
        read = shell(history)
        assert [read[number + 1] for number, line in enumerate(read) if line == "d"] == [
            "again",
            "sent by hand",
            "paid",
        ]

        seen = [reader.get_message(timeout=10)["data"] for _ in range(2)]
        first, second = (
            re.fullmatch(r"\0w1 (\d+) (\S+) (\S+) ([s-])(?: [^\n]+)?\n(.*)", each).groups() for each in seen
        )
        assert first == ("1", first[1], first[2], "s", "paid")
        assert second == ("2", second[1], first[1], "s", "again")
        wait_until(lambda: redis.exists("ws:wsloop:presence:{site}:counts"), what="presence in Redis")
        found = set(redis.keys()) - {"ws:broadcast:news"}
        for key in found:
            last = re.fullmatch(names["CHANNEL"], key) is not None
            kind = "string" if last else next(kind for pattern, kind in kinds.items() if re.fullmatch(pattern, key))
            assert (redis.type(key), redis.ttl(key) > 0) == (kind, True), key
        unseen = {pattern for pattern in kinds if not any(re.fullmatch(pattern, key) for key in found)}
        # There for moments only; tests/unit/test_layers.py and test_runner.py see them.
        assert unseen == {"ws:wsloop:outbox", "ws:wsloop:full:CONSUMER", "ws:wsloop:reply:RANDOM"}
        assert redis.get(f"ws:user:john:{facility}") == "again"

        assert shell(notices) == ["1", "1"]
        answers = redis.pubsub()
        answers.subscribe("ws:wsloop:answers:a1", "ws:wsloop:answers:a2")
        key = json.loads(site.manage("shell", "-v0", "-c", JOHNS_KEY).splitlines()[-1])
        assert shell(requests.replace('"7"', json.dumps(str(key)))) == ["1", "1"]
        _, _, *told = [answers.get_message(timeout=10) for _ in range(4)]
        assert [json.loads(each["data"]) for each in told] == [{"sockets": 2, "signed_in": 2}, {"sockets": 2}]
        assert client.closing() == late.closing() == 4500


JOHNS_KEY = "from django.contrib.auth.models import User; print(User.objects.get(username='john').pk)"

SETTINGS = """
import os
SECRET_KEY = "only for this test, and longer than fifty characters in all"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
MIDDLEWARE = []
APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.staticfiles"]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from wsloop.publisher import RedisPublisher

def publish(request):
    RedisPublisher(facility="orders", broadcast=True).publish_message("It works")
    return HttpResponse("published")

urlpatterns = [path("publish/", publish)]
"""


NO_WS4REDIS = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ws4redis", "six"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def test_another_site_uses_the_installed_package(tmp_path, redis_server):
    """Install the package, make a site with what the README's "Use it in your site" shows, serve it by its command.

    Without ws4redis, which the package does not require.
    """
    package, site = tmp_path / "package", tmp_path / "site"
    source = tmp_path / "source"
    files = ("wsloop", "pyproject.toml", "setup.py", "README.rst", "LICENSE")
    files = run(["git", "-C", str(ROOT), "ls-files", *files]).split()
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["-q", "--no-deps", "--no-compile", "--no-build-isolation"]  # setuptools is here already
    run([sys.executable, "-m", "pip", "install", *options, "--target", str(package), str(source)])

    assert (package / "wsloop/static/wsloop/wsloop.js").exists()
    assert (package / "wsloop/deploy/templates/nginx.conf.tpl").exists()

    snippets = code_blocks(ROOT / "README.rst", "python")
    (settings,) = [code for code in snippets if "INSTALLED_APPS" in code]
    (wsgi,) = [code for code in snippets if "get_wsgi_application" in code]
    settings = settings.replace("    ...,\n", "    *APPS,\n").replace("redis://localhost:6379/0", redis_server.url)
    (site / "mysite").mkdir(parents=True)
    (site / "mysite/__init__.py").touch()
    (site / "mysite/settings.py").write_text(SETTINGS + settings)
    (site / "mysite/urls.py").write_text(URLS)
    (site / "mysite/wsgi.py").write_text(wsgi)
    (site / "sitecustomize.py").write_text(NO_WS4REDIS)

    (command,) = [code for code in code_blocks(ROOT / "README.rst", "console") if "--module mysite.wsgi" in code]
    address = f"127.0.0.1:{free_port()}"
    words = command.removeprefix("$ ").replace("127.0.0.1:9090", address).split()
    uwsgi = str(Path(sys.executable).with_name(words[0]))
    shell = f"cd {site} && exec {uwsgi} {' '.join(words[1:])}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    server = Process(["sh", "-c", shell], tmp_path / "log", env | {"PYTHONPATH": f"{package}:{site}"})
    try:

        def connect():
            assert server.returncode is None, server.log()
            try:
                return websocket.create_connection(f"ws://{address}/ws/orders?subscribe-broadcast", timeout=10)
            except OSError:
                return None

        socket = wait_until(connect, what=f"the site answering\n{server.log()}")
        publish = f"import urllib.request; print(urllib.request.urlopen('http://{address}/publish/').read())"
        assert "published" in run([sys.executable, "-c", publish])
        assert socket.recv() == "It works"
        socket.close()
    finally:
        server.stop()

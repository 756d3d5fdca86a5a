"""``manage.py wsdoctor``: a real Redis, and a real nginx with right and wrong sections before a real server."""

import io
import json
import os
import re
import socket

import gevent
import pytest
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from redis.exceptions import ResponseError

from testbed.certificates import make_certificate
from testbed.nginx import start_nginx
from testbed.processes import free_port, wait_until
from tests.requires import need
from wsloop.backend import pool
from wsloop.diagnosis import machine, public_url, redis_server
from wsloop.diagnosis.finding import NOTE, OK, WRONG, Finding
from wsloop.management.commands import wsdoctor
from wsloop.management.commands.runserver import Server
from wsloop.server import WebsocketServer
from wsloop.sockets import servers

CLAIM = servers.claim  # that of a server: tests with sockets from elsewhere replace it


def run(*arguments):
    """Run the command: its exit status, what it prints, and what it says meanwhile."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("wsdoctor", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as exc:
        return exc.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def levels(findings, about=None):
    return [each.level for each in findings if about in (None, each.about)]


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def configure(own_redis):
    """Set options of the Redis of this test, and return the findings about it: ``configure(maxmemory="100mb")``."""

    def change(**options):
        with own_redis.client() as client:
            for name, value in options.items():
                client.config_set(name.replace("_", "-"), value)
        return {each.text: each for each in redis_server.findings()}

    return change


def test_a_redis_as_it_should_be(configure):
    found = list(configure().values())
    assert {each.level for each in found} <= {OK, NOTE}
    assert [each.text for each in found if each.level == NOTE] == ["none listens to this Redis"]
    assert any(each.text.startswith("is redis ") for each in found)


def test_a_redis_that_evicts(configure):
    found = configure(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    (wrong,) = [each for each in found.values() if each.level == WRONG]
    assert "deletes keys when it is full (maxmemory-policy allkeys-lru)" in wrong.text
    assert "noeviction" in wrong.advice
    assert WRONG not in levels(configure(maxmemory_policy="noeviction").values())


@pytest.mark.parametrize(
    ("limit", "level"), [("1mb 0 0", WRONG), ("0 1mb 60", WRONG), ("0 0 0", OK), ("64mb 8mb 60", OK)]
)
def test_the_buffer_of_a_subscriber(configure, limit, level):
    found = configure(client_output_buffer_limit=f"pubsub {limit}")
    (finding,) = [each for text, each in found.items() if re.match(r"cuts a worker|lets enough wait", text)]
    assert finding.level == level
    assert ("client-output-buffer-limit pubsub" in finding.advice) == (level == WRONG)


def test_a_history_that_a_restart_deletes(configure, with_settings):
    assert "keeps nothing over a restart" not in str(configure(save=""))
    with_settings(WSLOOP={"FACILITIES": {"orders": {"size": 10}}})
    assert "keeps nothing over a restart" in str(configure(save=""))
    assert "keeps nothing over a restart" not in str(configure(appendonly="yes"))
    configure(appendonly="no")  # it would write its file before it ends


def test_a_redis_that_is_slow_old_wrong_in_time_and_silent(shared_redis, monkeypatch):
    client = pool.client()
    ping = client.ping
    monkeypatch.setattr(redis_server, "PINGS", 3)
    monkeypatch.setattr(client, "ping", lambda: (gevent.sleep(0.02), ping()))
    monkeypatch.setattr(client, "info", lambda section: {"redis_version": "4.0.14"})
    monkeypatch.setattr(client, "time", lambda: (1_000_000_000, 0))

    def refuse(pattern):
        raise ResponseError("unknown command 'CONFIG'")

    monkeypatch.setattr(client, "config_get", refuse)
    found = list(redis_server.findings())
    assert levels(found, "Redis") == [WRONG, WRONG, WRONG, NOTE]
    version, latency, clock, silent = found[:4]
    assert (version.text, version.advice) == ("is redis 4.0.14", "wsloop needs Redis 5 or newer, or Valkey.")
    assert re.fullmatch(r"a round trip takes 2.* ms, the slowest of 3 [2-9].* ms", latency.text)
    assert "s apart" in clock.text
    assert silent.text == "does not tell its configuration: unknown command 'CONFIG'"


def test_workers_are_counted(front, shared_redis, facility):
    front.connect(f"{facility}?subscribe-broadcast")
    assert Finding(OK, "Workers", "1 listen to this Redis") in list(redis_server.findings())


def test_without_redis(own_redis):
    own_redis.kill()
    (found,) = redis_server.findings()
    assert (found.level, found.about) == (WRONG, "Redis")
    assert found.text.startswith("cannot be reached: ")


# --- the machine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def somaxconn(tmp_path, monkeypatch):
    def write(number):
        path = tmp_path / "somaxconn"
        path.write_text(f"{number}\n")
        monkeypatch.setattr(machine, "SOMAXCONN", path)

    return write


def about(name, findings):
    return [each for each in findings if each.about == name]


@pytest.mark.parametrize(
    ("listen", "most", "level"), [("", 4096, NOTE), ("listen = 2048", 4096, OK), ("listen = 2048", 128, WRONG)]
)
def test_the_queue_of_connections(tmp_path, somaxconn, listen, most, level):
    somaxconn(most)
    (tmp_path / "uwsgi.ini").write_text(f"[uwsgi]\ngevent = 100\n{listen}\n")
    (found,) = about("Backlog", machine.findings(tmp_path / "uwsgi.ini"))
    assert found.level == level
    assert "net.core.somaxconn" in found.advice or level == OK


def test_options_of_uwsgi_that_hurt(tmp_path):
    path = tmp_path / "site.ini"
    path.write_text("[uwsgi]\nhttp = :80\nharakiri = 30\nmax-requests = 1000\n")
    found = {each.about: each for each in machine.findings(path)}
    assert {"wsloop.W007", "wsloop.W008", "wsloop.W009", "wsloop.W011"} <= set(found)
    assert found["wsloop.W008"].level == WRONG
    assert found["wsloop.W008"].text.startswith("site.ini: harakiri kills a worker")


def test_options_of_gunicorn_that_hurt(tmp_path, somaxconn):
    somaxconn(4096)
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("import os\nmax_requests = 500\ngraceful_timeout = 5\n")
    found = about("gunicorn", machine.findings(path))
    assert levels(found) == [WRONG, WRONG, WRONG]
    assert found[0].advice == 'Write worker_class = "gevent".'
    path.write_text('worker_class = "gevent"\nbacklog = 2048\n')
    found = list(machine.findings(path))
    assert levels(found, "gunicorn") == levels(found, "Backlog") == [OK]


def test_descriptors(with_settings, monkeypatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (1024, 4096))
    (found,) = about("Descriptors", machine.findings())
    assert found.level == NOTE
    assert "may have 1024, so a worker holds 768 sockets and not 25000" in found.text
    assert "LimitNOFILE=33334" in found.advice
    with_settings(WSLOOP={"MAX_CONNECTIONS": 700})
    assert levels(about("Descriptors", machine.findings())) == [OK]
    with_settings(WSLOOP={"MAX_CONNECTIONS": None})
    assert levels(about("Descriptors", machine.findings())) == [NOTE]
    (found,) = about("Descriptors", machine.findings(pid=os.getpid()))
    assert found.level == WRONG
    assert f"the process {os.getpid()} may have" in found.text


# --- the way from outside ---------------------------------------------------------------------------------------------

GOOD = """
proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
proxy_set_header X-Forwarded-Proto $scheme;
"""
# The section that ws4redis documents for its WebSockets.
WS4REDIS = """
proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
proxy_pass http://127.0.0.1:{port};
"""


@pytest.fixture
def behind_nginx(fresh, monkeypatch, shared_redis, tmp_path, with_settings):
    """Serve WebSockets behind an nginx with this section: ``port = behind_nginx(GOOD)``."""
    need("nginx")
    monkeypatch.setattr(servers, "claim", CLAIM)
    with_settings(WS4REDIS_HEARTBEAT=None)
    server = Server(("127.0.0.1", 0), None)
    serving, proxies = [], []

    def start(section, listen="{port}"):
        if not serving:
            server.set_app(WebsocketServer())  # with the settings of the test
            serving.append(gevent.spawn(server.serve_forever))
        port = free_port()
        directory = tmp_path / f"nginx-{port}"
        directory.mkdir()
        section = section.format(port=server.server_port)
        proxies.append(start_nginx(directory, listen.format(port=port), section))
        wait_until(lambda: listens(port), what="nginx listening")
        return port

    yield start
    for each in proxies:
        each.stop()
    gevent.killall(serving)
    server._listener.close()


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def look(url, hold=0.0, headers=None):
    return list(public_url.findings(url, headers or {}, hold, lambda seconds, pings: None))


def test_behind_the_nginx_that_is_documented(behind_nginx, facility, with_settings):
    with_settings(WSLOOP={"PING_INTERVAL": 1, "PING_TIMEOUT": 1})
    found = look(f"ws://127.0.0.1:{behind_nginx(GOOD)}/ws/{facility}?subscribe-broadcast", hold=2.5)
    assert [(each.about, each.level) for each in found] == [("Handshake", OK), ("Host", OK), ("Timeouts", OK)]
    assert re.fullmatch(r"a socket stayed open for 2 s, with (1 ping|[2-9] pings)", found[2].text)


def test_the_section_that_ws4redis_documents_sets_no_host(behind_nginx, facility):
    found = look(f"ws://127.0.0.1:{behind_nginx(WS4REDIS)}/ws/{facility}?subscribe-broadcast")
    assert levels(found, "Handshake") == [OK], "scripts are let in"
    (host,) = about("Host", found)
    assert host.level == WRONG
    assert re.match(
        r"a page of http://127.0.0.1:\d+ gets 403 where a script gets 101: Pages of another site", host.text
    )
    assert "`proxy_set_header Host $http_host;`" in host.advice


def test_a_host_that_the_site_does_not_know(behind_nginx, facility, with_settings):
    with_settings(ALLOWED_HOSTS=["example.com"])
    (found,) = look(f"ws://127.0.0.1:{behind_nginx(GOOD)}/ws/{facility}?subscribe-broadcast")
    assert (found.level, found.about) == (WRONG, "Host")
    assert "ALLOWED_HOSTS" in found.text + found.advice


@pytest.mark.parametrize(
    "section",
    ["proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $http_host;", GOOD.replace('"upgrade"', '"close"')],
    ids=["HTTP/1.0", "Connection: close"],
)
def test_a_proxy_that_hands_on_no_upgrade(behind_nginx, facility, section):
    (found,) = look(f"ws://127.0.0.1:{behind_nginx(section)}/ws/{facility}?subscribe-broadcast")
    assert (found.level, found.about) == (WRONG, "Upgrade")
    assert "proxy_set_header Upgrade $http_upgrade" in found.advice


def test_a_proxy_that_cuts_silence(behind_nginx, facility):
    section = GOOD + "proxy_read_timeout 1s;"
    told = []
    url = f"ws://127.0.0.1:{behind_nginx(section)}/ws/{facility}?subscribe-broadcast"
    *_, found = public_url.findings(url, {}, 20.0, lambda seconds, pings: told.append(seconds))
    assert (found.level, found.about) == (WRONG, "Timeouts")
    assert re.match(r"it was cut after [1-9] s, with (0 pings|1 ping); there should be one each 30 s", found.text)
    assert "`proxy_read_timeout`" in found.advice
    assert told[0] < 1


def test_who_has_not_signed_in_is_told_to(behind_nginx, facility, with_settings, signed_in):
    def policy(request, channels):
        if not request.user or not request.user.is_authenticated:
            raise PermissionDenied
        return channels

    with_settings(WS4REDIS_ALLOWED_CHANNELS=policy)
    url = f"ws://127.0.0.1:{behind_nginx(GOOD)}/ws/{facility}?subscribe-broadcast"
    found = look(url, hold=0.1)
    assert [(each.about, each.level) for each in found] == [("Handshake", NOTE), ("Host", OK)]
    assert "--header" in found[0].advice
    assert levels(look(url, hold=0.1, headers={"Cookie": signed_in.cookie})) == [OK, OK, OK]


def test_pages_of_any_site(behind_nginx, facility, with_settings):
    with_settings(WSLOOP={"ALLOWED_ORIGINS": ["*"]})
    found = look(f"ws://127.0.0.1:{behind_nginx(GOOD)}/ws/{facility}?subscribe-broadcast")
    assert levels(found, "Origin") == [WRONG]


def test_the_scheme_as_it_arrives(behind_nginx, facility, with_settings, tmp_path, monkeypatch):
    need("openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    port = behind_nginx(GOOD, f"{{port}} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}")
    url = f"wss://localhost:{port}/ws/{facility}?subscribe-broadcast"
    (found,) = look(url)
    assert (found.level, found.about) == (WRONG, "URL")
    assert found.text.startswith("the certificate is not valid: self-signed certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    (found,) = about("Scheme", look(url))
    assert found.level == WRONG
    assert "SECURE_PROXY_SSL_HEADER" in found.advice
    with_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    assert levels(look(url)) == [OK, OK, OK]


def test_addresses_where_nothing_is(behind_nginx, facility):
    (found,) = look(f"ws://127.0.0.1:{free_port()}/ws/{facility}")
    assert found.text.startswith("cannot be reached: ")
    (found,) = look(f"ws://127.0.0.1:{behind_nginx('return 404;')}/ws/{facility}")
    assert (found.level, found.about) == (WRONG, "Handshake")
    (found,) = look(f"ws://127.0.0.1:{behind_nginx('proxy_pass http://127.0.0.1:1;')}/ws/{facility}")
    assert "502 of the proxy" in found.text


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def healthy(monkeypatch):
    """Findings that this test chooses, in place of those about this machine: ``healthy.append(Finding(…))``."""
    found = [Finding(OK, "Settings", "are right")]
    monkeypatch.setattr(machine, "findings", lambda config, pid: iter(found))
    monkeypatch.setattr(redis_server, "findings", lambda: iter(()))
    return found


def test_what_is_printed_and_the_exit_status(healthy):
    assert run() == (0, "ok    Settings: are right\n\nNothing to be changed.\n", "")
    healthy += [Finding(NOTE, "Backlog", "is short", "Set it."), Finding(WRONG, "Host", "is lost\x1b[2J", "Set it.")]
    status, out, _ = run()
    assert status == 1
    assert out.splitlines() == [
        "ok    Settings: are right",
        "note  Backlog: is short",
        "      Set it.",
        "wrong Host: is lost\\x1b[2J",
        "      Set it.",
        "",
        "To be changed: 1",
    ]
    status, out, _ = run("--json")
    assert status == 1
    assert json.loads(out) == {"ok": False, "findings": [each._asdict() for each in healthy]}


def test_progress_is_said_where_it_takes_long(healthy, behind_nginx, facility):
    url = f"ws://127.0.0.1:{behind_nginx(GOOD)}/ws/{facility}?subscribe-broadcast"
    status, out, err = run("--url", url, "--hold", "0.5")
    assert status == 0
    assert "ok    Timeouts: a socket stayed open for 0 s, with 0 pings" in out
    assert err == "holding a socket open: 0 of 0 s, pings: 0\n"
    assert run("--url", url, "--hold", "0.1", "--json")[2] == ""


def test_settings_that_cannot_be_read_are_all_that_is_said(with_settings):
    with_settings(WSLOOP={"PING_INTERVAL": "often"})
    status, out, _ = run()
    assert status == 1
    assert out.startswith("wrong wsloop.E001: WSLOOP['PING_INTERVAL'] must be a positive whole number")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--url", "https://example.com/ws/"], "--url must begin with wss:// or ws://"),
        (["--hold", "601", "--url", "ws://localhost"], "--hold must be from 0 to 600 seconds"),
        (["--header", "Cookie"], "--header must be a name and a value"),
        (["--header", "Cookie: a\r\nb: c"], "--header must be a name and a value"),
        (["--config", "/nowhere/uwsgi.ini"], "--config: there is no /nowhere/uwsgi.ini"),
        (["--pid", "999999999"], "--pid: there is no /proc/999999999/limits"),
    ],
)
def test_wrong_options(healthy, arguments, text):
    with pytest.raises(CommandError, match=text):
        run(*arguments)


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def write(self, text, ending="\n"):
        return super().write(text + ending)


def test_on_a_terminal_progress_is_one_line():
    out = Terminal()
    progress = wsdoctor.Progress(out, 3.0)
    for seconds in (0.0, 0.4, 1.1, 2.2):
        progress(seconds, 1)
    lines = out.getvalue().split("\r")
    assert [each for each in lines if each.strip()] == [
        "holding a socket open: 0 of 3 s, pings: 1",
        "holding a socket open: 1 of 3 s, pings: 1",
        "holding a socket open: 2 of 3 s, pings: 1\n",
    ]

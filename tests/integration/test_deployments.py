"""Ways to run a site on uWSGI that docs/how-to/run-in-production.rst has, each with the configuration of that page."""

import ast
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import sys
import time

import websocket

from testbed.certificates import make_certificate
from testbed.clients import Client, close_code, cookies_of
from testbed.nginx import start_nginx
from testbed.processes import ROOT, Process, free_port, wait_until
from testbed.site_files import site_environment
from testbed.sites import DEMO_ACCOUNTS, Response
from testbed.uwsgi import as_in_uwsgi_ini, has_ssl, is_elf, uwsgi_binaries
from tests.docs.test_docs import code_blocks
from tests.integration.harness import PublishingSite
from tests.integration.test_fronts import DEBIANS_PARAMS, frame_of
from tests.requires import missing, need

PAGE = ROOT / "docs/how-to/run-in-production.rst"
HTTPS = " uwsgi_param HTTPS $https if_not_empty;"


def block(language, words):
    """The code block of the page in which these words are."""
    (found,) = [each for each in code_blocks(PAGE, language) if words in each]
    return found


class Deployment:
    """Processes in the directory ``/srv/site`` of the page, and a client that trusts their certificate."""

    def __init__(self, directory, site_files, redis_url, prefix=""):
        need("openssl")
        self.directory, self.prefix = directory, prefix
        self.certificate, self.key = directory / "fullchain.pem", directory / "privkey.pem"
        make_certificate(self.certificate, self.key)
        shutil.copy(site_files / "db.sqlite3", directory)
        shutil.copy(ROOT / "wsgi.py", directory)
        (directory / "var").mkdir()
        self.reload = directory / "var/reload"
        self.reload.touch()
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.settings = {"WSLOOP": {"CALL_PATHS": ["/test/*"]}}
        self._env = site_environment(directory, site_files, redis_url, PublishingSite.settings_module)
        self._stack = contextlib.ExitStack()
        self.logs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.logs:
            print(process.log())  # shown by pytest if the test failed
        self._stack.close()

    def placed(self, text):
        """Text of the page with the paths of this deployment."""
        for there, here in (
            ("/etc/ssl/site/fullchain.pem", self.certificate),
            ("/etc/ssl/site/privkey.pem", self.key),
            ("/run/site/", f"{self.directory}/"),
            ("/srv/site", self.directory),
        ):
            text = text.replace(there, str(here))
        return text

    def uwsgi(self, binary, name, text):
        """Start a uWSGI with this configuration."""
        path = self.directory / name
        home = f"home = {sys.prefix}\n" if is_elf(binary) else ""
        path.write_text(f"{self.placed(text)}\npythonpath = {ROOT}\nstats = {path}.stats\n{home}")
        env = {**self._env, "SITE_SETTINGS": json.dumps(self.settings), "SITE_TOKEN": name}
        process = Process([binary, str(path)], self.directory / f"{name}.log", env)
        self.logs.append(process)
        self._stack.callback(process.stop)
        return process

    def nginx(self, text):
        """Start an nginx with this server."""
        (self.directory / "uwsgi_params").write_text(DEBIANS_PARAMS + HTTPS)
        server = self.placed(text).replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
        server = server.replace("server_name www.example.com", "server_name 127.0.0.1")
        process = start_nginx(self.directory, free_port(), f"}} }} {server} server {{ location / {{")
        self._stack.callback(process.stop)

    def request(self, method, path, headers=None, body=None):
        """Send a request; None if nobody answers it, as before the start."""
        trust = ssl.create_default_context(cafile=self.certificate)
        line = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=trust)
        with contextlib.closing(line):
            try:
                line.request(method, self.prefix + path, body=body, headers=headers or {})
                answer = line.getresponse()
                return Response(answer.status, answer.headers, answer.read())
            except (OSError, http.client.HTTPException):
                return None

    def wait(self, path="/test/whoami/"):
        def answers():
            for process in self.logs:
                assert process.returncode is None, process.log()
            answer = self.request("GET", path)
            return answer is not None and answer.status not in (502, 504)

        wait_until(answers, 60, "an answer")

    def login(self):
        page = self.request("GET", "/accounts/login/")
        token = cookies_of(page)["csrftoken"]
        form = f"username=john&password={DEMO_ACCOUNTS['john']}&csrfmiddlewaretoken={token}"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"csrftoken={token}"}
        # The Referer that Django wants of a secure page, as a browser sends it.
        headers |= {"Origin": f"https://{self.host}", "Referer": f"https://{self.host}{self.prefix}/accounts/login/"}
        answer = self.request("POST", "/accounts/login/", headers, form)
        assert answer.status == 302, answer.text
        assert answer.headers["Location"].startswith(f"{self.prefix}/")
        return "; ".join(f"{name}={value}" for name, value in {"csrftoken": token, **cookies_of(answer)}.items())

    def connect(self, path, cookies=None, **options):
        client = websocket.create_connection(
            f"wss://{self.host}{self.prefix}/ws/{path}",
            timeout=60,
            cookie=cookies,
            origin=f"https://{self.host}",
            sslopt={"ca_certs": str(self.certificate)},
            class_=Client,
            **options,
        )
        self._stack.callback(client.shutdown)
        return client

    def publish(self, facility, message, cookies, **audience):
        order = {"facility": facility, "messages": [message], "publisher": "wsloop", "how": "plain"}
        body = json.dumps({**order, "audience": audience})
        token = re.search("csrftoken=([^;]+)", cookies)[1]
        answer = self.request("POST", "/test/publish/", {"Cookie": cookies, "X-CSRFToken": token}, body)
        assert answer.status == 200, answer.text


def test_pages_and_sockets_apart_behind_tls(tmp_path, site_files, redis_server, facility):
    """Pages are answered whatever the sockets' workers do, and sockets stay open whatever those of the pages do."""
    need("nginx")
    with Deployment(tmp_path, site_files, redis_server.url) as site:
        (tmp_path / "pages.py").write_text(block("python", "/srv/site/pages.py"))
        site.uwsgi(uwsgi_binaries()[0], "pages.ini", block("ini", "/srv/site/pages.ini"))
        sockets = site.uwsgi(uwsgi_binaries()[-1], "sockets.ini", block("ini", "/srv/site/sockets.ini"))
        site.nginx(block("nginx", "sockets.sock"))
        site.wait()
        site.wait("/ws/")
        cookies = site.login()

        def pid():
            answer = site.request("GET", "/test/whoami/", {"Cookie": cookies})
            assert answer.status == 200
            assert answer.json()["token"] == "pages.ini"
            return answer.json()["pid"]

        clients = [site.connect(f"{facility}?subscribe-user&subscribe-broadcast", cookies) for _ in range(10)]
        site.publish(facility, "from a page", cookies, users="SELF")
        assert [client.next() for client in clients] == ["from a page"] * 10
        page = site.connect("", cookies, subprotocols=["wsloop.v1"])
        page.next()
        page.send(json.dumps({"type": "call", "path": "/test/whoami/"}))
        assert frame_of(page)["data"]["token"] == "sockets.ini"
        clients.append(page)

        old = {pid() for _ in range(20)}
        for each in old:
            os.kill(each, signal.SIGHUP)
        wait_until(lambda: pid() not in old, 60, "new pages")
        assert clients[0].round_trip() == b"round trip"

        later = time.time() + 60
        os.utime(site.reload, (later, later))
        wait_until(lambda: pid() and "has been touched" in sockets.log(), 30, "the reload of the sockets")
        assert {closing(client) for client in clients} == {1012}
        again = site.connect(f"{facility}?subscribe-broadcast")
        site.publish(facility, "anew", cookies, broadcast=True)
        assert again.next() == "anew"
        sockets.send_signal(signal.SIGTERM)
        assert closing(again) == 1012
        assert pid()


def closing(client):
    """The code of a close frame, behind whatever came before. No frame is answered: the line may have ended since."""
    while True:
        frame = client.recv_frame()
        if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
            return close_code(frame.data)


def test_below_a_path_with_tls_in_uwsgis_router(tmp_path, site_files, redis_server, facility):
    """All that a page does, and a stop that says goodbye through that router."""
    binaries = [binary for binary in uwsgi_binaries() if has_ssl(binary)]
    if not binaries:
        missing("no uWSGI here is built with OpenSSL")
    ini = f"[uwsgi]\nchdir = /srv/site\n{block('ini', 'mount = ')}\n{block('ini', 'https = ')}\n"
    with Deployment(tmp_path, site_files, redis_server.url, prefix="/shop") as site:
        names = ast.parse(block("python", "FORCE_SCRIPT_NAME")).body
        site.settings |= {each.targets[0].id: ast.literal_eval(each.value) for each in names}
        ini = ini.replace("0.0.0.0:8443", site.host) + "gevent = 100\nmaster = true\nlazy-apps = true\n"
        options = as_in_uwsgi_ini("hook-master-start", "hook-as-gateway")
        ini += "".join(f"{name[2:]} = {value}\n" for name, value in zip(options[::2], options[1::2], strict=True))
        server = site.uwsgi(binaries[0], "site.ini", ini)
        site.wait()
        cookies = site.login()
        style = re.search(r'href="(/[^"]+\.css)"', site.request("GET", "/accounts/login/").text)[1]
        assert style.startswith("/shop/static/")
        assert site.request("GET", style.removeprefix("/shop")).status == 200

        clients = [site.connect(f"{facility}?subscribe-user", cookies) for _ in range(20)]
        site.publish(facility, "in the shop", cookies, users="SELF")
        assert [client.next() for client in clients] == ["in the shop"] * 20
        page = site.connect("", cookies, subprotocols=["wsloop.v1"])
        page.next()
        for path in ("/test/whoami/", "/shop/test/whoami/"):
            page.send(json.dumps({"type": "call", "path": path}))
            assert frame_of(page)["data"]["user"] == "john"
        server.send_signal(signal.SIGTERM)
        assert {closing(client) for client in [*clients, page]} == {1012}
        assert server.wait(30) == 0

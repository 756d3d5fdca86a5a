"""``manage.py wsloop_init``: a fresh site, somebody who knows only what the command prints, and a message arrives.

What is printed is done, and what is written is run: as systemd, nginx and a container engine would.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websocket
import yaml

from testbed.certificates import make_certificate
from testbed.clients import Client
from testbed.nginx import start_servers
from testbed.processes import ROOT, Process, free_port, wait_until
from tests.requires import need

pytestmark = pytest.mark.timeout(300)  # seconds: a dozen processes that import Django

HEADING = re.compile(r"^(?! )(\S.*?):?$")


class Newcomer:
    """Somebody with a fresh site, who does what the command prints.

    Args:
        directory: an empty one.
        redis: the server of the site.
    """

    def __init__(self, directory, redis):
        self.site, self.port = directory, free_port()
        theirs = ("DJANGO_", "REDIS_", "DATABASE_", "UWSGI_", "GUNICORN_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        self.env |= {"PYTHONPATH": str(ROOT), "REDIS_URL": redis.url, "PROCESSES": "1"}
        self.run(f"{sys.executable} -m django startproject mysite .")
        settings = directory / "mysite/settings.py"
        settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "wsloop",'))

    def run(self, command, **more):
        done = subprocess.run(
            ["sh", "-ec", command], cwd=self.site, env=self.env | more, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def init(self, *arguments):
        """Have everything written, and do what is printed to the settings and the URLs; return the printed commands."""
        options = f"--no-input --write --host localhost --port {self.port} {shlex.join(arguments)}"
        sections, title = {}, ""
        for line in self.run(f"{sys.executable} manage.py wsloop_init {options}").splitlines():
            if line.startswith("    "):
                sections.setdefault(title, []).append(line[4:])
            elif found := HEADING.match(line):
                title = found[1]
            elif not line and sections:
                sections.setdefault(title, []).append("")
        if not any(title.startswith("Add to") for title in sections):
            return sections
        self._add("mysite/settings.py", *_one(sections, "Add to the end of the settings"))
        imports, *paths = _one(sections, "Add to the URLs")
        urls = self.site / "mysite/urls.py"
        urls.write_text(
            f"{imports}\n{urls.read_text()}".replace("urlpatterns = [", "\n    ".join(["urlpatterns = [", *paths]))
        )
        return sections

    def _add(self, name, *lines):
        with (self.site / name).open("a") as file:
            file.write("\n".join(["", *lines, ""]))

    def unit(self):
        """Return the section Service of the unit that was written, as lists of values by name."""
        values = {}
        for line in (self.site / "deploy/mysite.service").read_text().splitlines():
            name, sign, value = line.partition("=")
            if sign and not line.startswith("#"):
                values.setdefault(name, []).append(value)
        return values

    def start_nginx(self, directory):
        """Start nginx with the server block that was written, on other ports and with a certificate of its own."""
        make_certificate(directory / "certificate.pem", directory / "key.pem")
        http, https = free_port(), free_port()
        block = (self.site / "deploy/nginx.conf").read_text()
        for written, here in {
            "listen 80;": f"listen 127.0.0.1:{http};",
            "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
            "    listen [::]:80;\n": "",
            "    listen [::]:443 ssl;\n": "",
            "/etc/letsencrypt/live/localhost/fullchain.pem": str(directory / "certificate.pem"),
            "/etc/letsencrypt/live/localhost/privkey.pem": str(directory / "key.pem"),
            "/var/log/nginx/": f"{directory}/",
        }.items():
            assert written in block
            block = block.replace(written, here)
        return start_servers(directory, block), http, https


def _one(sections, beginning):
    (found,) = [lines for title, lines in sections.items() if title.startswith(beginning)]
    return found


def fetch(url, trust=None, **headers):
    """Return status and text of a response; redirects are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args, **more):
            return None

    handlers = [Stay, urllib.request.ProxyHandler({})]
    if trust:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=trust)))
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.build_opener(*handlers).open(
            urllib.request.Request(url, headers=names), timeout=30
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.status, refused.headers.get("Location", "")
    except urllib.error.URLError as broken:
        return None, str(broken)


@pytest.fixture
def connect():
    """Open a WebSocket, which is closed with the test: ``connect(url, origin=…)``."""
    with contextlib.ExitStack() as stack:

        def opened(url, **options):
            client = websocket.create_connection(url, timeout=30, class_=Client, **options)
            stack.callback(client.shutdown)
            return client

        yield opened


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory, redis_server):
    need("openssl")
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"), redis_server)
    newcomer.printed = newcomer.init()
    return newcomer


def test_what_is_written_serves_a_message_over_tls(newcomer, connect, tmp_path):
    """The commands that are printed, the systemd unit, uwsgi.ini and the nginx block, until the server is stopped."""
    prepare = _one(newcomer.printed, "Prepare it")
    checked = newcomer.run("\n".join(prepare) + "\nprintenv DJANGO_SECRET_KEY >&2")
    assert "wsloop." not in checked  # manage.py check --deploy has no warning of wsloop's
    secret = (newcomer.site / "mysite.env").read_text().strip().partition("=")[2]
    assert len(secret) > 50
    assert (newcomer.site / "mysite.env").stat().st_mode & 0o077 == 0
    assert (newcomer.site / "data/db.sqlite3").exists()

    unit = newcomer.unit()
    runtime, notices = tmp_path / "run", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    runtime.mkdir()
    notices.bind(str(runtime / "notify"))
    notices.settimeout(60)
    env = newcomer.env | dict(each.split("=", 1) for each in unit["Environment"])
    env |= {"DJANGO_SECRET_KEY": secret, "RUNTIME_DIRECTORY": str(runtime), "NOTIFY_SOCKET": str(runtime / "notify")}
    (directory,) = unit["WorkingDirectory"]
    assert Path(directory) == newcomer.site
    newcomer.run(unit["ExecStartPre"][0], **env)
    (command,) = unit["ExecStart"]
    server = Process(["sh", "-c", f"cd {directory} && exec {command}"], tmp_path / "log", env)
    nginx, http, https = newcomer.start_nginx(tmp_path)
    trust = str(tmp_path / "certificate.pem")
    site = f"https://localhost:{https}"
    try:
        told = b""
        while b"READY=1" not in told:  # Type=notify
            assert server.returncode is None, server.log()
            told += notices.recv(4096)
        direct = f"http://127.0.0.1:{newcomer.port}"
        wait_until(lambda: fetch(f"{site}/healthz", trust) == (200, '{"alive": true}'), 60, server.log())
        assert fetch(f"{site}/readyz", trust) == (200, '{"ready": true, "failing": []}')
        assert fetch(f"http://localhost:{http}/admin/?a=1") == (301, "https://localhost/admin/?a=1")
        for front in (site, f"http://127.0.0.1:{newcomer.port}"):  # of nginx, and of uWSGI where there is none
            assert fetch(f"{front}/static/admin/css/base.css", trust)[0] == 200
        assert fetch(f"{site}/admin/login/", trust)[0] == 200
        _probes_of_kubernetes(newcomer, direct)

        url = f"wss://localhost:{https}/ws/hello?subscribe-broadcast"
        tls = {"sslopt": {"ca_certs": trust}}
        client = connect(url, origin=site, **tls)
        _, publish = _one(newcomer.printed, "See a message arrive")
        newcomer.run(publish, DJANGO_SECRET_KEY=secret)
        assert client.next() == "It works"
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            connect(url, origin="https://other.example", **tls)
        assert refused.value.status_code == 403
        log = tmp_path / "mysite.log"
        wait_until(lambda: '"GET /ws/hello" 403' in log.read_text(), what="the line of nginx")
        assert "subscribe" not in log.read_text()
        assert re.search(r"\d WARNING wsloop\.handshake: refused: Origin: ", server.log()), server.log()

        (reload,) = unit["ExecReload"]
        assert reload == "/usr/bin/touch /run/mysite/reload"
        newcomer.run(reload.replace("/run/mysite", str(runtime)))
        assert client.closing(60) == 1012
        client = wait_until(lambda: _or_none(connect, url, **tls), 60, "the next worker")
        server.send_signal(15)
        assert client.closing(30) == 1012
        assert server.wait(int(unit["TimeoutStopSec"][0])) == 0
        errors = set(re.findall(r" (?:ERROR|CRITICAL) (\S+): ", server.log()))
        assert errors == {"django.security.DisallowedHost"}, server.log()  # of the probe without the name of the site
    finally:
        server.stop()
        nginx.stop()
        notices.close()


def _or_none(connect, url, **options):
    try:
        return connect(url, **options)
    except (OSError, websocket.WebSocketException):
        return None


def _probes_of_kubernetes(newcomer, direct):
    """They find their URLs; without their headers, of a pod that they know by its address, they would be refused."""
    deployment, _ = yaml.safe_load_all((newcomer.site / "deploy/kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    paths = set()
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[name]["httpGet"]
        headers = {each["name"]: each["value"] for each in get["httpHeaders"]}
        assert fetch(f"{direct}{get['path']}", **headers)[0] == 200
        assert fetch(f"{direct}{get['path']}", Host="10.0.0.7")[0] == 400
        paths.add(get["path"])
    assert paths == {"/healthz", "/readyz"}


PACKAGES = ["django", "wsloop", "gunicorn"]  # uWSGI is what the unit of systemd runs
STUBS = {
    # Packages come from this environment, and no user is made on this machine.
    "python": '[ "$1 $2" = "-m venv" ] && set -- "$@" --without-pip; exec {python} "$@"',
    "useradd": 'echo "$@" >> {directory}/users',
    "install": 'mkdir -p "$3"; echo "$2" >> {directory}/owners',
}


class Image:
    """A container, built and run by a shell: /app and /venv are directories of the test.

    It is the last stage that counts, but the directories of all stages are the same ones.
    """

    def __init__(self, newcomer, directory):
        self.newcomer, self.directory = newcomer, directory
        self.env = {"PATH": f"{directory}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        self.installed = []
        (directory / "bin").mkdir()
        for name, script in STUBS.items():
            stub = directory / "bin" / name
            stub.write_text(f"#!/bin/sh\n{script.format(python=sys.executable, directory=directory)}\n")
            stub.chmod(0o755)
        self.workdir = directory
        lines = (newcomer.site / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
        self.instructions = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
        self.last = {}

    def here(self, text):
        return re.sub(r"(?<![\w/])/(app|venv)\b", rf"{self.directory}/\1", text)

    def build(self):
        for name, text in self.instructions:
            self.last[name] = text
            getattr(self, f"do_{name.lower()}", lambda text: None)(self.here(text))

    def do_workdir(self, text):
        self.workdir = Path(text)
        self.workdir.mkdir(exist_ok=True)

    def do_copy(self, text):
        if "--from" in text:
            return  # both stages have it
        *sources, target = text.split()
        ignored = [each for each in (self.newcomer.site / ".dockerignore").read_text().split("\n") if each[:1] != "#"]
        patterns = [each.removeprefix("**/") for each in ignored if each]
        for source in sources:
            found = self.newcomer.site / source
            if found.is_dir():
                shutil.copytree(
                    found, self.workdir / target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*patterns)
                )
            else:
                shutil.copy(found, self.workdir / target)

    def do_env(self, text):
        for pair in text.split():
            name, _, value = pair.partition("=")
            self.env[name] = value.replace("$PATH", self.env["PATH"])

    def do_run(self, text):
        if "pip install" in text:
            self._install(text)
        else:
            subprocess.run(["sh", "-ec", text], cwd=self.workdir, env=self.env, check=True, timeout=120)

    def _install(self, text):
        """Instead of pip: the packages of this environment, among which are those that are asked for."""
        (venv,) = re.findall(r"(\S+)/bin/pip", text)
        here = next(each for each in sys.path if each.endswith("site-packages"))
        packages = next(Path(venv).glob("lib/python3*/site-packages"))
        (packages / "here.pth").write_text(here + "\n")
        for program in ("uwsgi", "gunicorn"):
            script = Path(sys.prefix) / "bin" / program
            if script.exists():
                lines = script.read_text().splitlines()[1:]
                (Path(venv) / "bin" / program).write_text("\n".join([f"#!{venv}/bin/python", *lines, ""]))
                (Path(venv) / "bin" / program).chmod(0o755)
        self.installed += (self.workdir / "requirements.txt").read_text().splitlines()

    def command(self, name):
        return [self.here(each) for each in json.loads(re.search(r"\[.*\]$", self.last[name])[0])]


def engine():
    """Whether a container engine is at hand, and not only its client."""
    docker = shutil.which("docker")
    return docker and subprocess.run([docker, "info"], capture_output=True, timeout=60).returncode == 0


def build_with_engine(newcomer):
    """Build the image, with wsloop as a wheel, and load the site in a container."""
    newcomer.run(f"{sys.executable} -m pip wheel --quiet --no-deps --wheel-dir wheels {shlex.quote(str(ROOT))}")
    newcomer.init("docker", "--server", "gunicorn", "--force")
    newcomer.run("docker build --tag wsloop-init-test .")
    key = "--env DJANGO_SECRET_KEY=only-for-this-test"
    newcomer.run(f"docker run --rm --read-only {key} wsloop-init-test python -c 'import mysite.wsgi'")


def test_the_steps_of_the_container_build_and_run_the_site(newcomer, connect, tmp_path, redis_server):
    (newcomer.site / "requirements.txt").unlink()  # with another server
    newcomer.init("server", "docker", "--server", "gunicorn", "--force")
    if engine():
        build_with_engine(newcomer)
    image = Image(newcomer, tmp_path)
    image.build()
    assert [line.partition("~=")[0] for line in image.installed] == ["# What the site runs on.", *PACKAGES]
    assert re.search(r"--uid 10001 .*mysite", (tmp_path / "users").read_text())
    assert image.last["USER"] == "10001"
    assert (tmp_path / "owners").read_text() == "--owner=10001\n"
    assert (tmp_path / "app/data").is_dir()
    assert (tmp_path / "app/staticfiles/admin/css/base.css").exists()
    copied = {path.name for path in (tmp_path / "app").iterdir()}
    assert not {"mysite.env", "db.sqlite3", "deploy"} & copied

    compose = yaml.safe_load((newcomer.site / "compose.yaml").read_text())
    service = compose["services"]["site"]
    assert service["env_file"] == "mysite.env" and service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["ports"] == [f"127.0.0.1:{newcomer.port}:{newcomer.port}"]
    assert service["volumes"] == ["data1:/app/data"] and compose["volumes"] == {"data1": {}}
    env = image.env | {"DJANGO_SECRET_KEY": "only for this test", "REDIS_URL": redis_server.url, "PROCESSES": "1"}
    env["LISTEN"] = env["LISTEN"].replace("0.0.0.0", "127.0.0.1")  # nobody else's business
    subprocess.run(["python", "manage.py", "migrate", "-v0"], cwd=image.workdir, env=env, check=True, timeout=120)
    command = shlex.join(image.command("CMD"))
    with Process(["sh", "-c", f"cd {image.workdir} && exec {command}"], tmp_path / "log", env) as server:
        port = newcomer.port

        def healthy():
            assert server.returncode is None, server.log()
            return subprocess.run(image.command("HEALTHCHECK"), env=env, stderr=subprocess.DEVNULL).returncode == 0

        wait_until(healthy, 60, server.log())
        url = f"ws://127.0.0.1:{port}/ws/hello?subscribe-broadcast"
        client = connect(url, header=["X-Forwarded-Proto: https"], suppress_origin=True)
        assert image.last["STOPSIGNAL"] == "SIGTERM"
        server.send_signal(15)
        assert client.closing(30) == 1012
        assert server.wait(20) == 0

"""What ``wsloop_init`` reads, shows and writes; what the files do is in tests/integration/test_init.py."""

import ast
import difflib
import io
import re
import subprocess
import sys
from pathlib import Path

import django
import pytest
import yaml
from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command, load_command_class

from testbed.processes import ROOT
from tests.docs.test_docs import rows
from tests.requires import need
from wsloop.checks import patching
from wsloop.deploy import site as site_module
from wsloop.deploy import wsgi_module
from wsloop.deploy.files import PARTS, files

TEMPLATE = Path(django.__file__).parent / "conf/project_template/project_name/wsgi.py-tpl"
PLAIN = re.sub(r"{{ *project_name *}}", "mysite", TEMPLATE.read_text())
SQLITE = "django.db.backends.sqlite3"
SECRETS = {"SECRET_KEY": "the-secret-key-of-the-site", "redis": "password-of-redis", "database": "password-of-database"}


@pytest.fixture
def use_database(monkeypatch):
    """Let the settings have another database: ``use_database(ENGINE=…)``; nobody connects to it."""
    return lambda **given: monkeypatch.setattr(settings, "DATABASES", {"default": given})


@pytest.fixture
def directory(tmp_path, monkeypatch, with_settings):
    """The directory of a site as ``django-admin startproject`` makes it."""
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite/__init__.py").touch()
    (tmp_path / "mysite/settings.py").write_text(f"SECRET_KEY = {SECRETS['SECRET_KEY']!r}\n")
    (tmp_path / "mysite/wsgi.py").write_text(PLAIN)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    monkeypatch.syspath_prepend(tmp_path)
    with_settings(
        BASE_DIR=tmp_path,
        SECRET_KEY=SECRETS["SECRET_KEY"],
        ALLOWED_HOSTS=["localhost", "www.example.org"],
        WSGI_APPLICATION="mysite.wsgi.application",
        STATIC_URL="/static/",
        STATIC_ROOT=None,
        MIDDLEWARE=[],
        ROOT_URLCONF="tests.unit.test_health",
        WSLOOP={},
    )
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mysite"]:
        del sys.modules[name]


def init(*arguments, **options):
    """Run the command; return what it prints, and the text of its error."""
    output, error = io.StringIO(), ""
    try:
        call_command("wsloop_init", *arguments, stdout=output, no_color=True, **options)
    except CommandError as exc:
        error = str(exc)
    return output.getvalue(), error


def texts(*parts, **options):
    """The files for the site, by their names."""
    found = site_module.read(**options)
    return {str(each.path.relative_to(found.directory)): each.text for each in files(found, list(parts or PARTS))}


def content(directory):
    return {path: path.read_text() for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc"}


# wsgi.py


def added(before, after):
    """The lines that a change adds; none may be gone."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert [line for line in lines if line.startswith("- ")] == []
    return [line[2:] for line in lines if line.startswith("+ ")]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (PLAIN, True),
        (PLAIN.replace("'", '"') + "\n# a comment\n", True),
        (PLAIN.partition('"""\n\n')[2], True),  # without its docstring
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n" + PLAIN.partition('"""\n\n')[2], True),
        (PLAIN.replace("import os\n", "from __future__ import annotations\n\nimport os\n", 1), False),
        (f"{PLAIN}\nfrom whitenoise import WhiteNoise\n\napplication = WhiteNoise(application)\n", False),
        (PLAIN.replace("'mysite.settings')", "'mysite.settings')\nos.environ['TZ'] = 'UTC'"), False),
    ],
)
def test_a_module_keeps_its_lines_and_gets_what_it_lacks(text, plain):
    change = wsgi_module.change(text, "application", "/ws/")
    assert (change.plain, change.problem) == (plain, "")
    lines = added(text, change.text)
    assert (
        lines.count(
            "monkey.patch_all()  # before any other import: sockets, locks and time imported later must be gevent's"
        )
        == 1
    )
    assert lines.count('    if environ.get("PATH_INFO", "").startswith("/ws/"):') == 1
    tree = ast.parse(change.text)
    assert patching.imported_before_patching(tree) is None
    assert ast.get_docstring(tree) == ast.get_docstring(ast.parse(text))
    compile(change.text, "wsgi.py", "exec")  # __future__ is where it must be
    assert wsgi_module.change(change.text, "application", "/ws/").text == change.text


def test_a_module_that_lacks_one_thing_gets_that():
    patched = f"from gevent import monkey\n\nmonkey.patch_all()\n{PLAIN.partition(chr(34) * 3 + chr(10) * 2)[2]}"
    change = wsgi_module.change(patched, "application", "/ws/")
    assert "WebsocketServer" in change.text and change.text.count("patch_all") == 1
    served = "import os\nfrom wsloop.server import WebsocketServer\napplication = WebsocketServer()\n"
    change = wsgi_module.change(served, "application", "/ws/")
    assert "patch_all" in change.text and change.text.count("WebsocketServer") == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "import os\nfrom gevent import monkey\nmonkey.patch_all()\n",
            "Move its `monkey.patch_all()` above the import of os",
        ),
        ("from ws4redis.uwsgi_runserver import uWSGIWebsocketServer\n", "It names ws4redis's server"),
        (
            "import ws4redis.uwsgi_runserver as s\napplication = s.uWSGIWebsocketServer()\n",
            "It names ws4redis's server",
        ),
        ("def application(:\n", "It cannot be parsed: "),
        ("\0", "It cannot be parsed: "),
    ],
)
def test_what_lines_alone_do_not_mend(text, problem):
    change = wsgi_module.change(text, "application", "/ws/")
    assert change.text == text
    assert problem in change.problem


def test_a_site_with_another_name_for_its_application_and_another_url(directory, with_settings):
    with_settings(WSGI_APPLICATION="mysite.wsgi.app", WEBSOCKET_URL="/sockets/")
    (directory / "mysite/wsgi.py").write_text(PLAIN.replace("application = ", "app = "))
    written = texts("wsgi", "server")
    assert "def app(environ, start_response)" in written["mysite/wsgi.py"]
    assert '.startswith("/sockets/")' in written["mysite/wsgi.py"]
    assert "module = mysite.wsgi:app\n" in written["uwsgi.ini"]


def test_a_site_without_a_module_gets_one(directory, with_settings):
    (directory / "mysite/wsgi.py").unlink()
    with_settings(WSGI_APPLICATION="ws4redis.django_runserver.application")
    (text,) = texts("wsgi").values()
    assert wsgi_module.change(text, "application", "/ws/").text == text
    assert 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")' in text


# The command


def test_nothing_is_written_before_it_is_asked_for(directory):
    before = content(directory)
    output, error = init(interactive=False)
    assert error == ""
    assert content(directory) == before
    assert "+++ deploy/nginx.conf" in output and "+    server_name www.example.org;" in output
    assert "+from gevent import monkey" in output
    assert re.search(r"^  mysite/wsgi.py +changes$", output, re.MULTILINE)
    assert "Nothing was written: --write does that." in output


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_it_asks(directory, monkeypatch, answer, written):
    asked = []
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    init("server")
    assert asked == ["Write 1 files? [y/N] "]
    assert (directory / "uwsgi.ini").exists() == written
    init("server")
    assert len(asked) == 1 + (not written)  # nothing to write, nothing to ask


def test_files_of_the_site_stay_unless_forced(directory):
    (directory / "uwsgi.ini").write_text("; mine\n")
    output, error = init("server", "nginx", write=True)
    assert (directory / "uwsgi.ini").read_text() == "; mine\n"
    assert (directory / "deploy/nginx.conf").exists()
    assert "-; mine" in output
    assert error == (
        "Not written, because it differs: uwsgi.ini. --write --force replaces what is there, and keeps it as .bak."
    )
    for number, backup in enumerate(("uwsgi.ini.bak", "uwsgi.ini.bak2")):
        (directory / "uwsgi.ini").write_text(f"; mine {number}\n")
        output, error = init("server", write=True, force=True)
        assert error == ""
        assert f"Wrote uwsgi.ini; the former one is {backup}" in output
        assert (directory / backup).read_text() == f"; mine {number}\n"
    output, error = init("server", "nginx", write=True)
    assert (error, "Wrote" in output) == ("", False)
    assert re.search(r"^  uwsgi.ini +is as it should be$", output, re.MULTILINE)


def test_a_plain_wsgi_module_is_changed_and_one_with_code_only_if_forced(directory):
    path = directory / "mysite/wsgi.py"
    assert init("wsgi", write=True)[1] == ""
    assert "WebsocketServer" in path.read_text()
    assert (directory / "mysite/wsgi.py.bak").read_text() == PLAIN
    path.write_text(PLAIN + "\napplication = print\n")
    output, error = init("wsgi", write=True)
    assert "It has code of the site" in output and "+from wsloop.server import WebsocketServer" in output
    assert "mysite/wsgi.py" in error and "WebsocketServer" not in path.read_text()
    assert init("wsgi", write=True, force=True)[1] == ""
    assert "application = print\n" in path.read_text()
    path.write_text("import os\nfrom gevent import monkey\nmonkey.patch_all()\n")
    output, error = init("wsgi", write=True, force=True)
    assert "Move its `monkey.patch_all()`" in output
    assert "mysite/wsgi.py" in error and "WebsocketServer" not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nginx", "caddy"], "There is no part 'caddy'; there are wsgi, server, nginx, systemd, docker, kubernetes."),
        (["--host", "https://www.example.com"], "is not the name of a host: --host www.example.com"),
        (["--host", "a;b"], "is not the name of a host"),
        (["--host", "*"], "is not the name of a host"),
        (["--directory", "srv/site"], "is not absolute"),
        (["--directory", "/srv/my site"], "has characters that nginx, systemd or a shell would take"),
        (["--directory", "/srv/$HOME"], "has characters"),
        (["--directory", "/srv/a%d"], "has characters"),
        (["--directory", "/"], "has characters"),
        (["--name", "my site"], "cannot be the name of a service: --name mysite"),
        (["--name", "x" * 32], "cannot be the name of a service"),
        (["--name", "../x"], "cannot be the name of a service"),
        (["--port", "0"], "--port must be a number from 1 to 65535."),
        (["--port", "65536"], "--port must be a number from 1 to 65535."),
        (["--server", "apache"], "invalid choice: 'apache'"),
    ],
)
def test_what_cannot_be_used_is_said(directory, arguments, words):
    before = content(directory)
    assert words in init(*arguments, "--write", interactive=False)[1]
    assert content(directory) == before


def test_settings_that_a_server_would_misread(directory, with_settings):
    with_settings(STATIC_ROOT="/srv/a b", INSTALLED_APPS=["wsloop", "django.contrib.staticfiles"])
    assert "The path '/srv/a b' of the settings has characters" in init("nginx")[1]
    with_settings(STATIC_ROOT="/srv/static", WEBSOCKET_URL="/w{s/")
    assert "nginx would take '/w{s/'" in init("nginx")[1]
    with_settings(WEBSOCKET_URL="/ws/", ALLOWED_HOSTS=["*", "a b", "[::1]", ".example.org", "WWW.example.org"])
    assert "server_name .example.org www.example.org;" in texts("nginx")["deploy/nginx.conf"]
    assert "/etc/letsencrypt/live/example.org/" in texts("nginx")["deploy/nginx.conf"]
    with_settings(ALLOWED_HOSTS=["*", "127.0.0.1"])
    assert "server_name www.example.com;" in texts("nginx")["deploy/nginx.conf"]


def test_what_cannot_be_read_or_written_is_said(directory):
    (directory / "deploy").write_text("a file")
    assert f"Cannot write {directory}/deploy/nginx.conf: " in init("nginx", write=True)[1]
    (directory / "uwsgi.ini").write_bytes(b"\xff")
    assert "can't decode byte 0xff" in init("server", write=True)[1]


def test_no_secret_gets_into_a_file_or_onto_the_terminal(directory, with_settings, use_database):
    with_settings(
        WS4REDIS_CONNECTION=f"redis://:{SECRETS['redis']}@redis.example.org/0",
        SECRET_KEY=SECRETS["SECRET_KEY"],
    )
    use_database(ENGINE="django.db.backends.postgresql", PASSWORD=SECRETS["database"])
    for server in ("uwsgi", "gunicorn"):
        output, error = init(server=server, interactive=False)
        assert error == ""
        assert [each for each in SECRETS.values() if each in output] == []
    assert 'SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY")' in output
    assert "psycopg~=" in texts("docker")["requirements.txt"]
    assert "data" not in texts("systemd")["deploy/mysite.service"]


# The files


@pytest.mark.parametrize("server", ["uwsgi", "gunicorn"])
def test_containers_and_pods(directory, with_settings, server):
    with_settings(
        WSLOOP={"LEAVING_FILE": "/tmp/leaving", "PING_INTERVAL": 100},
        SECURE_PROXY_SSL_HEADER=("HTTP_X_SCHEME", "tls"),
        MEDIA_ROOT=directory / "media",
    )
    written = texts("docker", "kubernetes", server=server, port=9000)
    service = yaml.safe_load(written["compose.yaml"])["services"]["site"]
    assert service["ports"] == ["127.0.0.1:9000:9000"]
    assert service["volumes"][0] == "data1:/app/media"
    deployment, front = yaml.safe_load_all(written["deploy/kubernetes.yaml"])
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == front["spec"]["selector"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    stop = container["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["sh", "-c", "touch /tmp/leaving; sleep 5"]
    mercy = site_module.read().mercy
    assert pod["spec"]["terminationGracePeriodSeconds"] > 5 + mercy
    assert int(service["stop_grace_period"].removesuffix("s")) > mercy
    ready = container["readinessProbe"]
    assert 2 < ready["timeoutSeconds"] <= ready["periodSeconds"]  # the view takes up to 2 s
    assert ready["httpGet"]["httpHeaders"] == [
        {"name": "Host", "value": "www.example.org"},
        {"name": "X-Scheme", "value": "tls"},
    ]
    last = written["Dockerfile"].splitlines()[-1]
    assert last == {"uwsgi": 'CMD ["uwsgi", "uwsgi.ini"]', "gunicorn": 'CMD ["gunicorn"]'}[server]
    package = {"uwsgi": "pyuwsgi", "gunicorn": "gunicorn"}[server]
    assert any(line.startswith(package) for line in written["requirements.txt"].splitlines())
    assert "media" in written[".dockerignore"].splitlines()


def test_the_image_of_a_site_with_requirements_and_wheels(directory):
    (directory / "pyproject.toml").touch()
    (directory / "wheels").mkdir()
    written = texts("docker")
    assert "requirements.txt" not in written
    assert "RUN /venv/bin/pip install --no-cache-dir --find-links wheels pyuwsgi .\n" in written["Dockerfile"]
    (directory / "requirements.txt").write_text("Django>=5.2\nwsloop[uwsgi]\n")
    assert "pip install --no-cache-dir --find-links wheels -r requirements.txt" in texts("docker")["Dockerfile"]
    assert "which the image needs" not in init("docker", interactive=False)[0]
    (directory / "requirements.txt").write_text("Django>=5.2\n")
    output = init("docker", interactive=False)[0]
    assert "requirements.txt does not name pyuwsgi" in output and "requirements.txt does not name wsloop" in output


def test_a_certificate_is_renewed_while_nginx_runs(directory):
    (root,) = re.findall(r"acme-challenge/ {\s+root (\S+);", texts("nginx")["deploy/nginx.conf"])
    printed, _ = init("--no-input", "nginx")
    assert f"certbot certonly --webroot --webroot-path {root} --deploy-hook 'systemctl reload nginx' -d" in printed


def test_nginx_waits_longer_than_the_pings(directory, with_settings):
    assert texts("nginx")["deploy/nginx.conf"].count("_timeout 75s;") == 2
    with_settings(WSLOOP={"PING_INTERVAL": 100})
    assert texts("nginx")["deploy/nginx.conf"].count("_timeout 215s;") == 2
    assert "/static/" not in texts("nginx")["deploy/nginx.conf"]  # there is no application for them
    with_settings(INSTALLED_APPS=["wsloop", "django.contrib.staticfiles"])
    assert f"alias {directory}/staticfiles/;" in texts("nginx")["deploy/nginx.conf"]
    assert "alias /srv/mysite/staticfiles/;" in texts("nginx", place="/srv/mysite/")["deploy/nginx.conf"]
    with_settings(MIDDLEWARE=["whitenoise.middleware.WhiteNoiseMiddleware"])
    assert "/static/" not in texts("nginx")["deploy/nginx.conf"]  # the site serves them itself
    with_settings(WEBSOCKET_URL="/")
    assert texts("nginx")["deploy/nginx.conf"].count("location / {") == 2  # of both servers


@pytest.mark.parametrize("server", ["uwsgi", "gunicorn"])
def test_systemd_has_no_word_against_the_unit(directory, with_settings, server):
    verify = need("systemd-analyze")
    programs = directory / ".venv/bin"
    programs.mkdir(parents=True)
    for program in ("python", "uwsgi", "gunicorn"):
        (programs / program).write_text("#!/bin/sh\n")
        (programs / program).chmod(0o755)
    unit = directory / "mysite.service"
    text = texts("systemd", server=server)["deploy/mysite.service"]
    unit.write_text(text.replace(f"{site_module.read().programs}/", f"{programs}/"))
    done = subprocess.run([verify, "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_lets_the_server_at_what_it_needs(directory, use_database):
    text = texts("systemd", place="/home/john/site")["deploy/mysite.service"]
    assert "ProtectHome=read-only\n" in text and "ExecStart=/home/john/site/.venv/bin/uwsgi uwsgi.ini\n" in text
    use_database(ENGINE=SQLITE, NAME=directory / "db.sqlite3")
    text = texts("systemd", place="/srv/mysite")["deploy/mysite.service"]
    assert "ProtectHome=yes\n" in text and "ReadWritePaths=-/srv/mysite/data\n" in text  # not all of the code
    use_database(ENGINE=SQLITE, NAME="/var/lib/mysite/db.sqlite3")
    assert "ReadWritePaths=-/var/lib/mysite\n" in texts("systemd")["deploy/mysite.service"]


def test_the_configuration_of_gunicorn_is_python(directory):
    text = texts("server", server="gunicorn")["gunicorn.conf.py"]
    namespace = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), namespace)
    assert namespace["wsgi_app"] == "mysite.wsgi:application"
    assert namespace["bind"] == "127.0.0.1:8000"


# What is left to do


def test_a_site_that_has_all_settings_is_told_none(directory, with_settings):
    output, _ = init("nginx", "systemd", "docker", interactive=False)
    for name in (
        "SECRET_KEY",
        "STATIC_ROOT",
        "SECURE_PROXY_SSL_HEADER",
        "SESSION_COOKIE_SECURE",
        "TRUSTED_PROXIES",
        "REDIS_URL",
        "LOGGING",
    ):
        assert (name in output.partition("Add to the end")[2].partition("Prepare it")[0]) == (name != "STATIC_ROOT"), (
            name
        )
    (directory / "mysite/settings.py").write_text("# REDIS_URL\n")
    with_settings(
        LOGGING={"version": 1},
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        SESSION_COOKIE_SECURE=True,
        CSRF_COOKIE_SECURE=True,
        WSLOOP={"TRUSTED_PROXIES": ["127.0.0.1"]},
    )
    with_settings(SECRET_KEY="")  # from the environment, which has none here
    output, _ = init("nginx", "systemd", "docker", interactive=False)
    assert "Add to" not in output  # nor to the URLs, which have healthz and readyz


def test_the_settings_that_are_told_can_be_read(directory, with_settings, use_database, monkeypatch):
    """As Python, behind the settings that there are."""
    with_settings(DEBUG=True, INSTALLED_APPS=["wsloop", "django.contrib.staticfiles"])
    use_database(ENGINE=SQLITE, NAME=directory / "db.sqlite3")
    output, _ = init("nginx", "docker", interactive=False)
    block = output.partition("Add to the end of the settings (mysite.settings):\n")[2].partition("\nPrepare it")[0]
    code = "\n".join(line[4:] for line in block.splitlines())
    after = {
        "BASE_DIR": directory,
        "SECRET_KEY": "x",
        "WSLOOP": {"URL": "/ws/"},
        "DATABASES": {"default": {}},
    }
    monkeypatch.setenv("DJANGO_SECRET_KEY", "a key")
    monkeypatch.setenv("REDIS_URL", "redis://redis")
    exec(code, after)
    assert after["SECRET_KEY"] == "a key" and after["DEBUG"] is False
    assert after["WSLOOP"]["TRUSTED_PROXIES"] == ["127.0.0.1"] and after["WSLOOP"]["URL"] == "/ws/"
    assert after["STATIC_ROOT"] == directory / "staticfiles"
    assert after["LOGGING"]["root"] == {"handlers": ["console"], "level": "INFO"}
    assert after["DATABASES"]["default"]["NAME"] == directory / "data/db.sqlite3"
    monkeypatch.delenv("DJANGO_SECRET_KEY")
    exec(code, after)
    assert after["SECRET_KEY"] == ""  # closed: no key, no site
    monkeypatch.setenv("DJANGO_DEBUG", "1")
    after["SECRET_KEY"] = "the key for development"
    exec(code, after)
    assert after["SECRET_KEY"] == "the key for development" and after["DEBUG"] is True


def test_urls_that_are_missing_are_told(directory, with_settings):
    (directory / "mysite/urls.py").write_text("urlpatterns = []\n")
    with_settings(ROOT_URLCONF="mysite.urls")
    output, _ = init("nginx", interactive=False)
    assert "from wsloop import health" in output and 'path("readyz", health.readyz),' in output


def test_warnings_about_what_files_cannot_help(directory, with_settings, use_database):
    with_settings(
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        INSTALLED_APPS=["wsloop", "django.contrib.staticfiles"],
    )
    use_database(ENGINE=SQLITE, NAME=directory / "db.sqlite3")
    output, _ = init("kubernetes", server="gunicorn", interactive=False)
    for words in (
        "Pods share no SQLite",
        "gunicorn serves no static files",
        "Sessions are in the memory of one worker",
    ):
        assert words in output


def test_parts_and_options_are_documented():
    page = ROOT / "docs/reference/wsloop-init.rst"
    assert [row[0] for row in rows(page, "Part")] == list(PARTS)
    parser = load_command_class("wsloop", "wsloop_init").create_parser("manage.py", "wsloop_init")
    theirs = {each for action in BaseCommand().create_parser("", "")._actions for each in action.option_strings}
    given = {each for action in parser._actions for each in action.option_strings} - theirs
    assert {row[0] for row in rows(page, "Option")} == given

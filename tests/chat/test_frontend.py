"""The page that React makes: where its scripts come from, what it tells them, and what refuses a POST."""

import contextlib
import http.server
import json
import logging
import subprocess
import sys
import threading

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from chat import frontend
from testbed.processes import ROOT, free_port

ORIGIN = "http://localhost:5173"


@pytest.fixture
def lookout(monkeypatch):
    """As in a process that has just been started; the clock is the test's."""
    lookout = frontend.Lookout()
    lookout.now = 100.0
    monkeypatch.setattr(frontend, "lookout", lookout)
    monkeypatch.setattr(frontend.time, "monotonic", lambda: lookout.now)
    return lookout


@contextlib.contextmanager
def vite(directory, status=200):
    """A server that answers as Vite does, and its file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/vite/@vite/client" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_port}"
        (directory / "vite.json").write_text(json.dumps({"origin": origin, "base": "/vite/"}))
        with override_settings(DEBUG=True, VAR_DIR=directory):
            yield origin
        server.shutdown()


def page(client, **headers):
    response = client.get(reverse("react"), **headers)
    assert response.status_code == 200
    return response.content.decode(), response["Content-Security-Policy"]


def test_the_built_files_are_used_without_vite(client, sign_in, lookout):
    html, policy = page(client)
    assert '<link rel="stylesheet" href="/static/react/main.css">' in html
    assert '<script type="module" src="/static/react/main.js"></script>' in html
    assert "csp-nonce" not in html and "nonce" not in policy and "script-src" not in policy
    assert 'data-user=""' in html and "data-sign-in=" in html and "<noscript>" in html
    assert "<script>" not in html and "style=" not in html
    assert 'data-user="john"' in page(sign_in("john"))[0]


def test_vite_is_used_when_it_is_there(client, lookout, tmp_path, caplog):
    caplog.set_level(logging.INFO, "chat.frontend")
    with vite(tmp_path) as origin:
        html, policy = page(client)
        assert f'<script type="module" src="{origin}/vite/@vite/client"></script>' in html
        assert f'<script type="module" src="{origin}/vite/src/development.ts"></script>' in html
        assert '<meta property="csp-nonce" nonce="' in html and "static/react/" not in html.partition("<body>")[0]
        nonce = html.partition('nonce="')[2].partition('"')[0]
        assert f"script-src 'self' {origin};" in policy
        assert f"style-src 'self' 'nonce-{nonce}'" in policy
        assert f"connect-src 'self' {origin} ws{origin[4:]};" in policy
        # Through its proxy it is of the same origin.
        host = origin.removeprefix("http://")
        html, _ = page(client, HTTP_HOST=host)
        assert '<script type="module" src="/vite/@vite/client"></script>' in html
    with override_settings(DEBUG=True, VAR_DIR=tmp_path):  # it has ended; its file is still there
        lookout.now += 0.9
        assert "@vite/client" in page(client)[0]
        lookout.now += 0.2
        assert "@vite/client" not in page(client)[0]
        lookout.now += 10
        page(client)
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        f"/react/ uses the development server of Vite at {origin}",
        "/react/ uses the built files in static/react",
    ]


def test_nobody_looks_for_vite_without_debug(lookout, tmp_path):
    with vite(tmp_path), override_settings(DEBUG=False):
        assert lookout.server() is None


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "null", '{"origin": "http://localhost"}', '{"origin": 1, "base": 2}'],
    ids=["no file", "an empty one", "half of one", "a list", "null", "no base", "numbers"],
)
def test_a_file_that_does_not_say_where_vite_is(lookout, tmp_path, text):
    if text is not None:
        (tmp_path / "vite.json").write_text(text)
    with override_settings(DEBUG=True, VAR_DIR=tmp_path):
        assert lookout.server() is None


def test_another_server_on_its_port_is_not_vite(lookout, tmp_path):
    with vite(tmp_path, status=404):
        assert lookout.server() is None
    (tmp_path / "vite.json").write_text(json.dumps({"origin": f"http://127.0.0.1:{free_port()}", "base": "/vite/"}))
    with override_settings(DEBUG=True, VAR_DIR=tmp_path):
        assert lookout.server() is None


@pytest.mark.parametrize("debug", [True, False])
def test_a_post_of_another_origin_is_told_which_setting_is_missing(sign_in, database, caplog, debug):
    browser = Client(enforce_csrf_checks=True)
    headers = {"HTTP_ORIGIN": ORIGIN, "HTTP_ACCEPT": "application/json", "HTTP_HOST": "127.0.0.1:8000"}
    with override_settings(DEBUG=debug):
        response = browser.post(reverse("send"), {"message": "x"}, **headers)
    assert response.status_code == 403
    (said,) = response.json()["errors"]["__all__"]
    assert "CSRF_TRUSTED_ORIGINS" in said
    assert (ORIGIN in said) == debug
    (logged,) = [record.message for record in caplog.records if record.name == "chat.frontend"]
    for word in (
        f"The page is of {ORIGIN}",
        "127.0.0.1:8000",
        "changeOrigin",
        "CSRF_TRUSTED_ORIGINS",
        "ALLOWED_ORIGINS",
    ):
        assert word in logged
    with override_settings(CSRF_TRUSTED_ORIGINS=[ORIGIN]):
        response = Client(enforce_csrf_checks=True).post(reverse("send"), {"message": "x"}, **headers)
    assert response.json()["errors"]["__all__"] == ["The page is out of date: reload it, and send it again."]


def test_a_browser_without_scripts_gets_a_page(database):
    response = Client(enforce_csrf_checks=True).post(reverse("send"), {"message": "x"})
    assert response.status_code == 403
    assert "The page was out of date" in response.content.decode()


def test_the_settings_for_development_let_the_pages_of_vite_in():
    code = "from project import settings; print(settings.CSRF_TRUSTED_ORIGINS, settings.WSLOOP['ALLOWED_ORIGINS'])"
    for debug, allowed in (("1", True), ("", False)):
        env = {"DJANGO_DEBUG": debug, "DJANGO_SECRET_KEY": "x" * 50}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        assert (done.stdout.count(ORIGIN) == 2) == allowed
        assert allowed or done.stdout == "[] []\n"

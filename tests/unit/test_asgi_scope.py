"""The scope of a hosted application's socket, from the request that a WSGI server describes."""

import gc
import weakref

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory

from wsloop.asgi_scope import asgi_scope


def request(**environ):
    """A request with what a WSGI server has in its environ, and what the test adds."""
    return WSGIRequest({**RequestFactory().get("/ws/room/").environ, **environ})


def test_all_that_the_specification_wants_is_there():
    client = {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "4711"}
    scope = asgi_scope(request(QUERY_STRING="a=1&b=%C3%A4", SERVER_PORT="8000", **client))
    assert scope.pop("headers") == [(b"cookie", b"")]
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws/room/",
        "raw_path": b"/ws/room/",
        "query_string": b"a=1&b=%C3%A4",
        "root_path": "",
        "client": ("192.0.2.1", 4711),
        "server": ("testserver", 8000),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_headers_are_bytes_in_lower_case_and_all_of_them():
    """Also what frameworks for authentication look for: cookies and Authorization."""
    scope = asgi_scope(
        request(
            HTTP_COOKIE="sessionid=abc",
            HTTP_AUTHORIZATION="Token secret",
            HTTP_X_LONG_NAME="Value",
            HTTP_ORIGIN="http://testserver",
            CONTENT_TYPE="text/plain",
            CONTENT_LENGTH="",
        )
    )
    assert sorted(scope["headers"]) == [
        (b"authorization", b"Token secret"),
        (b"content-type", b"text/plain"),
        (b"cookie", b"sessionid=abc"),
        (b"origin", b"http://testserver"),
        (b"x-long-name", b"Value"),
    ]


def test_headers_that_many_clients_have_are_kept_once_and_secrets_only_with_their_socket():
    same = {"HTTP_USER_AGENT": "Browser", "HTTP_COOKIE": "sessionid=abc", "HTTP_X_KEY": "secret"}
    first, second = (dict((each[0], each) for each in asgi_scope(request(**same))["headers"]) for _ in range(2))
    assert first == second
    assert [name for name in first if first[name] is second[name]] == [b"user-agent"]


@pytest.mark.parametrize(("text", "sent"), [("Ã¼", b"\xc3\xbc"), ("ü", b"\xfc"), ("€", b"?")])
def test_bytes_of_headers_are_those_that_were_sent(text, sent):
    """WSGI has them as Latin-1; what is none did not come from a client."""
    assert (b"x-name", sent) in asgi_scope(request(HTTP_X_NAME=text))["headers"]


@pytest.mark.parametrize(
    ("offered", "names"), [("chat", ["chat"]), ("soap, chat", ["soap", "chat"]), (" soap ,,chat,", ["soap", "chat"])]
)
def test_subprotocols_are_a_list(offered, names):
    assert asgi_scope(request(HTTP_SEC_WEBSOCKET_PROTOCOL=offered))["subprotocols"] == names


def test_the_path_is_decoded_and_the_raw_one_is_as_it_was_sent():
    environ = {"REQUEST_URI": "/ws/caf%C3%A9%2Fbar/?a=1", "PATH_INFO": "/ws/cafÃ©/bar/", "QUERY_STRING": "a=1"}
    scope = asgi_scope(request(**environ))
    assert (scope["path"], scope["raw_path"]) == ("/ws/café/bar/", b"/ws/caf%C3%A9%2Fbar/")
    del environ["REQUEST_URI"]
    assert asgi_scope(request(**environ))["raw_path"] == b"/ws/caf%C3%A9/bar/"


def test_a_site_below_a_path_of_its_own():
    scope = asgi_scope(request(SCRIPT_NAME="/site", PATH_INFO="/ws/room/"))
    assert (scope["root_path"], scope["path"]) == ("/site", "/site/ws/room/")


@pytest.mark.parametrize(("wsgi", "scheme"), [("http", "ws"), ("https", "wss")])
def test_the_scheme(wsgi, scheme):
    assert asgi_scope(request(**{"wsgi.url_scheme": wsgi}))["scheme"] == scheme


@pytest.mark.parametrize("port", ["", "unix", None])
def test_a_port_that_is_not_known_is_0(port):
    environ = {"REMOTE_ADDR": "", "REMOTE_PORT": port}
    assert asgi_scope(request(**environ))["client"] == ("", 0)


def test_scopes_share_nothing_that_an_application_may_change():
    one, other = asgi_scope(request()), asgi_scope(request())
    one["asgi"]["version"] = one["state"]["x"] = one["extensions"]["x"] = one["headers"] = "changed"
    assert (other["asgi"]["version"], other["state"], list(other["extensions"])) == (
        "3.0",
        {},
        ["websocket.http.response"],
    )


def test_the_request_is_not_kept():
    made = request()
    scope, reference = asgi_scope(made), weakref.ref(made)
    del made
    gc.collect()
    assert reference() is None
    assert scope["type"] == "websocket"

"""What a socket keeps of its handshake."""

import sys

import pytest
from django.test import RequestFactory

from wsloop.visit import Visit

HEADERS = {
    "HTTP_HOST": "testserver",
    "HTTP_ORIGIN": "http://testserver",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0",
    "HTTP_ACCEPT_LANGUAGE": "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
    "HTTP_X_FORWARDED_FOR": "203.0.113.7",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def visit(path="/ws/", **headers):
    return Visit(RequestFactory().get(path, **HEADERS | headers).environ)


def test_a_request_is_like_the_handshake_but_for_path_and_subscription():
    request = visit("/ws/?tenant=7&subscribe-user&Publish-User&echo&resume=x", HTTP_COOKIE="a=b").handshake(
        "/ws/gr\u00fcn/%2f", {"subscribe-broadcast": ""}
    )
    assert request.path == "/ws/gr\u00fcn/%2f"
    assert request.GET.dict() == {"tenant": "7", "subscribe-broadcast": ""}
    assert request.COOKIES == {"a": "b"}
    assert request.headers["User-Agent"] == HEADERS["HTTP_USER_AGENT"]
    assert request.get_host() == "testserver"
    assert request.META["REMOTE_ADDR"] == "127.0.0.1"
    assert request.method == "GET"
    assert "Sec-WebSocket-Key" not in request.headers
    assert "Upgrade" not in request.headers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_whether_the_site_is_encrypted_is_kept(scheme):
    made = Visit(RequestFactory().get("/ws/", secure=scheme == "https", **HEADERS).environ)
    assert made.handshake("/ws/a", {}).scheme == scheme


def test_a_body():
    environ = visit().environ("POST", "/api/", "a=1", b"{}")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("application/json", "2")
    assert environ["wsgi.input"].read() == b"{}"
    assert visit().environ("POST", "/api/", "")["wsgi.input"].read() == b""


def test_the_content_type_of_the_handshake_is_none_of_a_later_request():
    assert "CONTENT_TYPE" not in visit(CONTENT_TYPE="text/x").environ("GET", "/", "")


def test_clients_of_one_kind_share_what_they_have_in_common():
    one, other = visit(HTTP_COOKIE="a=1"), visit(HTTP_COOKIE="a=2")
    assert one._names is other._names
    mine, theirs = dict(zip(one._names, one._values, strict=True)), dict(zip(other._names, other._values, strict=True))
    assert mine["HTTP_USER_AGENT"] is theirs["HTTP_USER_AGENT"]
    assert mine["HTTP_COOKIE"] != theirs["HTTP_COOKIE"]
    assert sum(map(sys.getsizeof, (one, one._values, one._parameters, mine["HTTP_COOKIE"]))) < 500


@pytest.mark.parametrize(
    ("prefix", "path", "below"),
    [
        ("", "/shop/a/", "/shop/a/"),
        ("/shop", "/shop/a/", "/a/"),
        ("/shop", "/a/", "/a/"),
        ("/shop", "/shopping/", "/shopping/"),
        ("/l\u00e4den", "/l\u00e4den/a/", "/a/"),
    ],
)
def test_paths_of_a_site_below_a_path(prefix, path, below):
    made = visit(SCRIPT_NAME=prefix.encode().decode("latin-1"))
    assert made.below_prefix(path) == below
    assert made.handshake("/a/", {}).path == f"{prefix}/a/"

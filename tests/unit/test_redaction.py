"""What of a request may stand in a log."""

import io
import logging

import pytest
from django.http import QueryDict

from wsloop.redaction import REDACTED, RedactTokens, printable, redact, request_line

SECRET = "am9obg:1vMabc:S3cr_et-signature"
KEY = "x8kq2f0s9d1m3n5b7v6c4z2a1q0w9e8r"


@pytest.mark.parametrize(
    "text",
    [
        "GET /ws/news?token={}&subscribe-user",
        "GET /ws/news?subscribe-user&TOKEN={} HTTP/1.1",
        "/ws/news?token%3D{}",
        "{{'token': '{}', 'next': '/'}}",
        "<QueryDict: {{'token': ['{}']}}>",
        '{{"token": "{}"}}',
        "[('token', '{}')]",
        "csrftoken={}; other=1",
        "Sec-WebSocket-Protocol: wsloop.v1, wsloop.token.{}, chat",
    ],
)
def test_tokens_are_replaced(text):
    assert redact(text.format(SECRET)) == text.format(REDACTED)


def test_the_representation_of_a_query_and_of_its_pairs():
    query = QueryDict(f"token={SECRET}&subscribe-user")
    for text in (repr(query), str(query.dict()), str(list(query.items())), query.urlencode()):
        assert SECRET.rpartition(":")[2] not in redact(text)
        assert "subscribe-user" in redact(text)


def test_session_keys_in_channels_are_replaced():
    text = f"Command # 1 (SET ws:session:{KEY}:news payload) of pipeline caused error: OOM"
    assert redact(text) == f"Command # 1 (SET ws:session:{REDACTED}:news payload) of pipeline caused error: OOM"


@pytest.mark.parametrize(
    "text", ["", "a token of love", "GET /token/?subscribe-user", "wsloop.token", "session:john:news"]
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("/", "GET /"),
        ("/ws/news?subscribe-user&echo", "GET /ws/news?subscribe-user&echo"),
        (f"/ws/news?subscribe-user&token={SECRET}", f"GET /ws/news?subscribe-user&token={REDACTED}"),
        (f"/ws/news?tok%65n={SECRET}&a=b=c", f"GET /ws/news?tok%65n={REDACTED}&a={REDACTED}"),
        (f"/ws/news?token={SECRET}\n1.2.3.4", f"GET /ws/news?token={REDACTED}"),
        (f"/ws/news/%3Ftoken={SECRET}", f"GET /ws/news/%3Ftoken={REDACTED}"),
        ("/gr%C3%BCn", "GET /gr%C3%BCn"),
        ("/gr\xfcn \x1b[31m\n\r\x7f", "GET /gr%FCn%20%1B[31m%0A%0D%7F"),
        ("", "GET "),
    ],
)
def test_the_line_of_a_request(uri, line):
    assert request_line("GET", uri) == line


def test_a_method_cannot_forge_a_line():
    assert request_line("GE\nT\x1b", "/") == "GE%0AT%1B /"
    assert printable("GET") == "GET"


@pytest.fixture
def log():
    """A logger with the filter on its handler, and what the handler writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactTokens())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, stream.getvalue


def test_the_filter_redacts_messages_and_arguments(log):
    logger, written = log
    logger.warning(f"refused: ?token={SECRET}")
    logger.warning("refused: %s of %s", f"/ws/news?token={SECRET}", {"token": SECRET})
    logger.warning("offered: %s", ["wsloop.v1", f"wsloop.token.{SECRET}"])
    logger.warning("nothing of %s", "the kind")
    assert "S3cr" not in written()
    assert written().count(REDACTED) == 4
    assert written().endswith("nothing of the kind\n")


def test_the_filter_redacts_tracebacks(log):
    logger, written = log
    try:
        try:
            raise KeyError(f"?token={SECRET}")
        except KeyError as exc:
            raise ValueError(f"wsloop.token.{SECRET}") from exc
    except ValueError:
        logger.exception("it failed")
    assert "S3cr" not in written()
    assert f"ValueError: wsloop.token.{REDACTED}" in written()
    assert "Traceback" in written()


def test_the_filter_redacts_arguments_that_do_not_fit(log, capsys):
    logger, written = log
    logger.warning("two: %s %s", f"token={SECRET}")
    assert written() == f"'two: %s %s' cannot be filled with ('token={REDACTED}',)\n"
    assert capsys.readouterr().err == ""

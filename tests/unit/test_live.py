"""``publish_template``: HTML over the wire."""

import types

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.db import transaction
from django.template import TemplateDoesNotExist

from wsloop.live import publish_template
from wsloop.publisher import SELF, RedisPublisher

ROW = '<li id="order-{{ order.pk }}">{{ order.state }}{{ user }}{{ request.path }}{% csrf_token %}</li>'
PROCESSORS = ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth"]


@pytest.fixture(autouse=True)
def templates(with_settings):
    loaders = [("django.template.loaders.locmem.Loader", {"row.html": ROW})]
    engine = {"BACKEND": "django.template.backends.django.DjangoTemplates"}
    with_settings(TEMPLATES=[engine | {"OPTIONS": {"loaders": loaders, "context_processors": PROCESSORS}}])


def order(state="paid"):
    return {"order": {"pk": 7, "state": state}}


def test_the_html_is_published_escaped_and_once_for_all(received, facility):
    publish_template("row.html", order("<b>paid</b> & sent"), facility=facility, broadcast=True, users=["john"])
    html = '<li id="order-7">&lt;b&gt;paid&lt;/b&gt; &amp; sent</li>'
    assert received() == [html]
    assert received(f"unit:user:john:{facility}") == [html]


def test_a_request_chooses_the_audience_and_is_not_in_the_html(received, facility):
    session = SessionStore()
    session._session_key = "johns-key"
    request = types.SimpleNamespace(user=User(username="john"), session=session, path="/secret/", META={})
    publish_template("row.html", order(), facility=facility, users=[SELF], sessions=[SELF], request=request)
    for channel in ("user:john", "session:johns-key"):
        assert received(f"unit:{channel}:{facility}") == ['<li id="order-7">paid</li>']


def test_a_visitor_who_is_nobody_is_sent_nothing(received, facility):
    request = types.SimpleNamespace(user=AnonymousUser(), session=SessionStore())
    publish_template("row.html", order(), facility=facility, users=[SELF], request=request)
    assert received() == []


def test_it_waits_for_the_commit_unless_it_is_told_not_to(received, database, facility):
    with transaction.atomic():
        publish_template("row.html", order("one"), facility=facility, broadcast=True)
        publish_template("row.html", order("two"), facility=facility, broadcast=True, on_commit=False)
        assert received() == ['<li id="order-7">two</li>']
    assert received() == ['<li id="order-7">two</li>', '<li id="order-7">one</li>']


def test_what_is_rolled_back_is_not_published(received, database, facility):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish_template("row.html", order(), facility=facility, broadcast=True)
        raise ZeroDivisionError
    assert received() == []


def test_it_is_retained_only_on_demand(received, facility):
    publisher = RedisPublisher(facility=facility)
    publish_template("row.html", order(), facility=facility, broadcast=True)
    assert publisher.fetch_message(None, facility, "broadcast") is None
    publish_template("row.html", order(), facility=facility, broadcast=True, expire=60)
    assert publisher.fetch_message(None, facility, "broadcast") == b'<li id="order-7">paid</li>'


def test_a_key_and_the_first_template_that_exists(received, facility):
    for state in ("one", "two"):
        publish_template(["none.html", "row.html"], order(state), facility=facility, broadcast=True, key="7")
    assert received() == ['<li id="order-7">one</li>']


def test_a_template_that_does_not_exist_is_named(received, facility):
    with pytest.raises(TemplateDoesNotExist, match=r"none\.html"):
        publish_template("none.html", facility=facility, broadcast=True)


def test_a_wrong_audience_is_refused(received, facility):
    with pytest.raises(TypeError, match="users must be"):
        publish_template("row.html", order(), facility=facility, users=7)


def test_with_the_outbox_it_is_a_row_of_the_transaction(received, database, facility):
    from wsloop.outbox.models import Message

    with transaction.atomic():
        publish_template("row.html", order(), facility=facility, broadcast=True, outbox=True)
        assert Message.objects.count() == 1
    assert received() == ['<li id="order-7">paid</li>']

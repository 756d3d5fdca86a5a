"""The pages, without sockets: what they answer, and what reaches Redis."""

import json
import re
import time
from datetime import datetime
from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.template.library import SimpleNode
from django.test import Client, override_settings
from django.urls import reverse
from django.utils.timezone import localtime

from wsloop.publisher import RedisPublisher
from wsloop.templatetags.wsloop import websocket_token

PAGES = ["home", "form", "broadcast", "user", "group", "session", "send", "inbox", "login"]
OPEN = ["home", "broadcast", "session", "inbox", "login"]
JSON = {"Accept": "application/json"}


def text(response):
    return response.content.decode()


# --- what everybody sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", OPEN)
def test_open_pages(client, listen, page):
    assert client.get(reverse(page)).status_code == 200


@pytest.mark.parametrize("page", sorted(set(PAGES) - set(OPEN)))
def test_pages_that_need_a_sign_in_lead_to_it_and_back(client, page):
    response = client.get(reverse(page))
    assert (response.status_code, response["Location"]) == (302, f"/accounts/login/?next={reverse(page)}")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_links_every_page_and_holds_no_inline_script_or_style(sign_in, listen, page):
    html = text(sign_in("john").get(reverse(page)))
    for other in PAGES[:-1]:
        assert f'href="{reverse(other)}"' in html
    assert "<script>" not in html
    assert "style=" not in html
    assert (
        "//" not in html.replace("ws://testserver", "").replace("http://www.w3.org/2000/svg", "").partition("<main")[0]
    )


def test_no_content_from_other_hosts(client):
    assert "default-src 'self'" in client.get("/")["Content-Security-Policy"]


@pytest.mark.parametrize("page", ["home", "login"])
def test_the_demonstration_accounts_are_shown_only_in_a_demonstration(client, page):
    assert "<code>mary</code>" in text(client.get(reverse(page)))
    with override_settings(DEMO=False):
        assert not re.search(r"\bmary\b", text(client.get(reverse(page))))
        assert "Demonstration" not in text(client.get(reverse(page)))


def test_the_start_page_tells_who_is_signed_in(client, sign_in):
    assert "You are not signed in." in text(client.get("/"))
    assert "You are signed in as <strong>john</strong>" in text(sign_in("john").get("/"))


def test_a_visitor_signs_in_as_john_with_one_click(client):
    browser = Client(enforce_csrf_checks=True)
    for page, goes_to in (("/", "/"), ("/accounts/login/?next=/form/", "/form/")):
        html = text(browser.get(page))
        form = re.search(r'<form method="post" action="/demo/sign-in/">.*?</form>', html, re.DOTALL)[0]
        fields = dict(re.findall(r'name="(\w+)" value="([^"]+)"', form))
        response = browser.post("/demo/sign-in/", fields)
        assert (response.status_code, response["Location"]) == (302, goes_to)
        assert "You are signed in as <strong>john</strong>" in text(browser.get("/"))
        browser.cookies.clear()
    assert client.get("/demo/sign-in/").status_code == 405  # a link or an image signs nobody in


def test_no_other_site_signs_a_visitor_in(database):
    browser = Client(enforce_csrf_checks=True)
    assert browser.post("/demo/sign-in/").status_code == 403
    assert "sessionid" not in browser.cookies


def test_one_click_leads_to_no_other_site(client):
    assert client.post("/demo/sign-in/", {"next": "https://example.com/"})["Location"] == "/"


def test_one_click_signs_nobody_in_outside_of_a_demonstration(client):
    with override_settings(DEMO=False):
        assert "demo/sign-in" not in text(client.get("/"))
        assert client.post("/demo/sign-in/").status_code == 404
    assert "sessionid" not in client.cookies


@pytest.mark.parametrize(
    "change", [lambda john: john.set_password("another"), lambda john: setattr(john, "is_active", False)]
)
def test_one_click_does_not_sign_in_to_an_account_that_is_not_the_demonstrations(client, john, change):
    """A real john of this site keeps what is his."""
    change(john)
    john.save()
    response = client.post("/demo/sign-in/", follow=True)
    assert response.redirect_chain == [("/accounts/login/", 302)]
    assert "There is no account john with the password of the demonstration." in text(response)
    assert "_auth_user_id" not in client.session


def test_signing_in_and_out(client):
    assert client.get("/accounts/logout/").status_code == 405
    wrong = client.post("/accounts/login/", {"username": "john", "password": "wrong"})
    assert "Please enter a correct username and password" in text(wrong)
    right = client.post("/accounts/login/", {"username": "john", "password": "secret", "next": "/form/"})
    assert right["Location"] == "/form/"
    assert client.post("/accounts/logout/")["Location"] == "/"
    assert client.get("/form/").status_code == 302


# --- publishing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "channel"),
    [
        ("form", "user:john:form"),
        ("broadcast", "broadcast:news"),
        ("user", "user:john:news"),
        ("group", "group:chatters:news"),
    ],
)
def test_a_form_publishes_to_its_audience(sign_in, listen, page, channel):
    listener, browser = listen(channel), sign_in("john")
    assert browser.post(reverse(page), {"message": " grüße "}, headers=JSON).json() == {"ok": True}
    assert listener.next() == "grüße"


def test_the_start_page_publishes_to_oneself_and_tells_what_the_view_measured(sign_in, listen):
    listener, browser = listen("user:john:home"), sign_in("john")
    began = time.perf_counter()
    answer = browser.post("/", {"id": "7f"}, headers=JSON).json()
    passed = (time.perf_counter() - began) * 1000
    assert json.loads(listener.next()) == {"id": "7f"}
    measured = answer.pop("milliseconds")
    assert answer == {"ok": True}
    assert sorted(measured) == ["redis", "view"]
    assert min(measured.values()) > 0
    assert sum(measured.values()) < passed


def test_what_the_start_page_says_of_redis_is_the_time_in_redis(sign_in, listen, monkeypatch):
    publish = RedisPublisher.publish_message

    def slow(*args):
        publish(*args)
        time.sleep(0.05)

    monkeypatch.setattr(RedisPublisher, "publish_message", slow)
    measured = sign_in("john").post("/", {"id": "7f"}, headers=JSON).json()["milliseconds"]
    assert measured["redis"] > 50
    assert measured["view"] < measured["redis"]


def test_the_start_page_without_scripts(sign_in, listen):
    listener, browser = listen("user:john:home"), sign_in("john")
    assert "Sent." in text(browser.post("/", {"id": ""}, follow=True))
    assert json.loads(listener.next()) == {"id": ""}


def test_the_start_page_publishes_no_long_id(sign_in, listen):
    listener = listen("user:john:home")
    response = sign_in("john").post("/", {"id": "x" * 37}, headers=JSON)
    assert (response.status_code, list(response.json()["errors"])) == (400, ["id"])
    assert listener.is_silent()


def test_the_start_page_without_redis(sign_in, no_redis):
    browser = sign_in("john")
    assert browser.post("/", {"id": "7f"}, headers=JSON).status_code == 503
    response = browser.post("/", {"id": ""})
    assert response.status_code == 503
    assert "Your message could not be delivered." in text(response)


def test_the_session_page_needs_no_account(client, listen):
    client.get("/session/")
    listener = listen(f"session:{client.session.session_key}:news")
    assert client.post("/session/", {"message": "to this browser"}, headers=JSON).json() == {"ok": True}
    assert listener.next() == "to this browser"


@pytest.mark.parametrize("page", ["session", "inbox"])
def test_pages_that_listen_to_the_session_make_one_and_keep_its_key_secret(client, listen, page):
    response = client.get(reverse(page))
    assert client.session.session_key
    assert client.session.session_key not in text(response)
    key = client.session.session_key
    client.get(reverse(page))
    assert client.session.session_key == key


def test_a_plain_form_is_redirected_and_the_page_shows_the_message(sign_in, listen):
    browser = sign_in("john")
    response = browser.post("/form/", {"message": "<b>plain</b>"}, follow=True)
    assert response.redirect_chain == [("/form/", 302)]
    assert "Sent." in text(response)
    assert '<p class="message-text">&lt;b&gt;plain&lt;/b&gt;</p>' in text(response)
    assert "plain&lt;" not in text(sign_in("mary").get("/form/"))


@pytest.mark.parametrize("headers", [JSON, {"X-Requested-With": "XMLHttpRequest"}], ids=["Accept", "jQuery"])
def test_errors_for_scripts(sign_in, listen, headers):
    listener = listen("user:john:form")
    response = sign_in("john").post("/form/", {"message": " "}, headers=headers)
    assert response.status_code == 400
    assert response.json() == {"ok": False, "errors": {"message": ["This field is required."]}}
    assert listener.is_silent()


def test_errors_of_a_plain_form_stand_at_the_field(sign_in, listen):
    html = text(sign_in("john").post("/form/", {"message": "x" * 2001}))
    assert '<ul class="errorlist" id="id_message_error">' in html
    assert 'aria-invalid="true"' in html
    assert 'aria-describedby="id_message_error"' in html


@pytest.mark.parametrize("page", ["home", "form", "broadcast", "user", "group", "send"])
def test_strangers_publish_nothing(client, listen, page):
    listener = listen("broadcast:news")
    message = {"message": "spam", "audience": "broadcast"}
    refused = client.post(reverse(page), message, headers=JSON)
    assert refused.status_code == 403
    assert refused.json() == {"ok": False, "errors": {"__all__": ["Sign in, then send it again."]}}
    assert client.post(reverse(page), message)["Location"].startswith("/accounts/login/")
    assert listener.is_silent()


def test_the_broadcast_page_shows_strangers_no_form(client, sign_in, listen):
    assert "<textarea" not in text(client.get("/broadcast/"))
    assert "<textarea" in text(sign_in("mary").get("/broadcast/"))


def test_whoever_is_in_no_group_is_told_so(sign_in, listen):
    browser = sign_in("admin")
    assert "You are in no group" in text(browser.get("/group/"))
    response = browser.post("/group/", {"message": "hello?"}, headers=JSON)
    assert (response.status_code, list(response.json()["errors"])) == (400, ["__all__"])


def test_forms_are_protected_against_other_sites(database):
    browser = Client(enforce_csrf_checks=True)
    assert browser.login(username="john", password="secret")
    response = browser.post("/form/", {"message": "forged"})
    assert response.status_code == 403
    assert "The page was out of date" in text(response)


# --- sending to somebody ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audience", "recipient", "channel"),
    [
        ("broadcast", "", "broadcast:inbox"),
        ("user", "mary", "user:mary:inbox"),
        ("group", "chatters", "group:chatters:inbox"),
    ],
)
def test_sending(sign_in, listen, audience, recipient, channel):
    listener = listen(channel)
    data = {"audience": audience, "recipient": recipient, "message": "hello"}
    assert sign_in("john").post("/send/", data, headers=JSON).json() == {"ok": True}
    note = json.loads(listener.next())
    assert (note["sender"], note["text"]) == ("john", "hello")
    assert datetime.fromisoformat(note["sent"].replace("Z", "+00:00")).tzinfo


def test_sending_to_this_browser(sign_in, listen):
    browser = sign_in("john")
    listener = listen(f"session:{browser.session.session_key}:inbox")
    assert browser.post("/send/", {"audience": "session", "message": "hello"}, headers=JSON).json() == {"ok": True}
    assert json.loads(listener.next())["text"] == "hello"


def test_after_a_plain_form_the_recipient_is_still_chosen(sign_in, listen):
    data = {"audience": "user", "recipient": "mary", "message": "hello"}
    response = sign_in("john").post("/send/", data, follow=True)
    assert response.redirect_chain == [("/send/?audience=user&recipient=mary", 302)]
    assert 'value="mary"' in text(response)


def test_names_are_not_given_away(sign_in, listen):
    get_user_model().objects.create_user(username="secretive")
    assert "secretive" not in text(sign_in("john").get("/send/"))


def test_the_inbox_listens_to_what_the_visitor_may_hear(client, sign_in, listen):
    for browser, audiences in (
        (client, ["broadcast", "session"]),
        (sign_in("john"), ["broadcast", "user", "group", "session"]),
    ):
        html = text(browser.get("/inbox/"))
        (socket,) = [unescape(part.split('"')[0]) for part in html.split('data-socket="')[1:]]
        assert socket == "ws://testserver/ws/inbox?" + "&".join(f"subscribe-{audience}" for audience in audiences)


@pytest.mark.parametrize("page", ["home", "form", "broadcast", "user", "group", "session", "inbox"])
def test_pages_that_listen_tell_where_their_socket_begins(sign_in, listen, page):
    assert re.search(r'data-token="[^"]+"', text(sign_in("john").get(reverse(page))))


def test_the_inbox_shows_what_was_kept(sign_in, listen):
    mary, john = sign_in("mary"), sign_in("john")
    mary.post("/send/", {"audience": "user", "recipient": "john", "message": "for <john>"})
    mary.post("/send/", {"audience": "broadcast", "message": "for all"})
    response = john.get("/inbox/")
    assert '<span class="sender">mary</span>' in text(response)
    assert '<p class="message-text">for &lt;john&gt;</p>' in text(response)
    notes = response.context["notes"]
    assert [(note["audience"], note["text"]) for note in notes] == [("broadcast", "for all"), ("user", "for <john>")]
    assert f'<time datetime="{localtime(notes[0]["sent"]).isoformat()}">' in text(response)


@pytest.mark.parametrize(
    "stray",
    [
        "not JSON",
        '"text"',
        "{}",
        "[1]",
        '{"text": "no sender"}',
        '{"text": "", "sender": "", "sent": 1}',
        '{"text": "", "sender": "", "sent": "0001-01-01T00:00:00+23:59"}',  # no date in the zone of the site
        '{"text": "", "sender": "", "sent": "9999-12-31T23:59:59-23:59"}',
    ],
)
def test_the_inbox_shows_what_others_published_there_as_it_is(sign_in, listen, private_redis, stray):
    private_redis.client().set("ws:broadcast:inbox", stray)
    (note,) = sign_in("john").get("/inbox/").context["notes"]
    assert note == {"audience": "broadcast", "message": stray, "text": stray, "fresh": False}


def test_nothing_is_missed_while_a_page_is_rendered(sign_in, listen, monkeypatch):
    """What is kept is read when the token is there: what is published in between is in both, not in neither."""
    browser = sign_in("john")
    publisher = RedisPublisher(facility="form", users=["john"])
    publisher.publish_message("before")
    quiet = text(browser.get("/form/"))
    assert 'data-kept="before" data-audience="user">' in quiet
    render = SimpleNode.render

    def render_and_publish(node, context):
        rendered = render(node, context)
        if node.func is websocket_token:
            publisher.publish_message("in between")
        return rendered

    monkeypatch.setattr(SimpleNode, "render", render_and_publish)
    busy = text(browser.get("/form/"))
    assert 'data-kept="in between" data-audience="user" data-fresh>' in busy
    token = re.compile(r'data-token="([^"]+)"')
    assert token.search(busy)[1] == token.search(quiet)[1]


# --- Redis is down ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES])
def test_pages_are_served_without_redis(sign_in, no_redis, page):
    assert sign_in("john").get(reverse(page)).status_code == 200


def test_a_message_that_cannot_be_delivered_is_not_lost(sign_in, no_redis):
    response = sign_in("john").post("/form/", {"message": "keep this"})
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert "Your message could not be delivered." in text(response)
    assert "keep this</textarea>" in text(response)
    assert "redis" not in text(response).partition("How it works")[0].lower()


def test_scripts_are_told_that_a_message_cannot_be_delivered(sign_in, no_redis):
    response = sign_in("john").post("/send/", {"audience": "broadcast", "message": "hello"}, headers=JSON)
    assert response.status_code == 503
    sentence = "Your message could not be delivered. Try again in a few seconds."
    assert response.json() == {"ok": False, "errors": {"__all__": [sentence]}}


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_address(client):
    response = client.get("/no/such/page/")
    assert response.status_code == 404
    assert "There is no such page" in text(response)


def test_the_page_about_a_crash_stands_alone(client, monkeypatch):
    def crash(*args):
        raise ZeroDivisionError("secret")

    client.raise_request_exception = False
    client.get("/")  # the middleware reads the static files with the first request
    # No page that extends the base template can be rendered.
    monkeypatch.setattr("django.contrib.staticfiles.storage.staticfiles_storage.url", crash)
    response = client.get("/")
    assert response.status_code == 500
    assert "Something went wrong on our side" in text(response)
    assert "/static/css/site.css" in text(response)
    assert "secret" not in text(response)


def test_browsers_that_look_for_an_icon_find_it(client):
    assert client.get("/favicon.ico")["Location"].startswith("/static/img/favicon")

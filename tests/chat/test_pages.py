"""The pages that talk to consumers, without sockets: what they answer, and that the code they show is what runs."""

import inspect
import re
from html import unescape

import pytest
from django.urls import resolve, reverse
from django.utils.html import escape

from chat import consumers, navigation, urls
from project.routing import websocket_urlpatterns

PAGES = [("echo", consumers.EchoConsumer), ("random", consumers.RandomConsumer)]


def text(response):
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize(("page", "consumer"), PAGES)
def test_a_page_is_open_to_all_and_needs_no_redis(client, sign_in, no_redis, page, consumer):
    for browser in (client, sign_in("john")):
        html = text(browser.get(reverse(page)))
        assert f'<a href="{reverse(page)}" aria-current="page">' in html
        assert f"ws://testserver/ws/{page}/" in html
        assert "<script>" not in html
        assert "style=" not in html


@pytest.mark.parametrize(("page", "consumer"), PAGES)
def test_a_page_shows_the_code_that_runs(client, page, consumer):
    shown = unescape(text(client.get(reverse(page))))
    assert inspect.getsource(consumer).strip() in shown
    assert f'path("ws/{page}/", {consumer.__name__}.as_websocket()),' in shown


@pytest.mark.parametrize(("page", "consumer"), PAGES)
def test_a_socket_of_a_page_is_its_consumer(page, consumer):
    assert resolve(f"/ws/{page}/", tuple(websocket_urlpatterns)).func.consumer_class is consumer


@pytest.mark.parametrize(("page", "consumer"), PAGES)
def test_a_page_that_needs_scripts_says_so(client, page, consumer):
    html = text(client.get(reverse(page)))
    assert '<noscript><p class="note">This page needs JavaScript' in html
    assert "data-needs-script hidden>" in html


def test_the_inspector_is_linked_for_staff_only(client, sign_in, database):
    for browser, linked in ((client, False), (sign_in("john"), False), (sign_in("admin"), True)):
        assert (f'href="{reverse("inspector")}"' in text(browser.get("/echo/"))) == linked


def test_the_navigation_explains_each_page_in_three_groups(client, sign_in):
    for browser in (client, sign_in("admin")):
        html = text(browser.get("/echo/"))
        assert re.findall(r"<summary([^>]*)>(\w+)", html) == [
            ("", "Notifications"),
            (' aria-current="true"', "Chat"),
            ("", "Tools"),
        ]
        for group in navigation.GROUPS:
            assert group.about in html
            for page in group.pages:
                if browser is client and page.staff_only:
                    continue
                assert f'href="{reverse(page.name)}"' in html
                assert escape(page.about) in html


def test_the_navigation_names_every_page_of_the_sample():
    paths = [pattern for pattern in urls.urlpatterns if pattern.name]
    below = {"home", "demo-sign-in"}
    named = set().union(*(group.names for group in navigation.GROUPS))
    assert {pattern.name for pattern in paths} - below == named - {"admin:index", "wsloop-ops:page"}


def test_a_room_belongs_to_the_rooms_and_an_unknown_page_to_nothing(client):
    current = re.compile(r'<a href="([^"]*)" aria-current="page">')
    assert current.findall(client.get("/rooms/no-room/").content.decode()) == ["/rooms/"]
    assert current.findall(client.get("/no/such/page/").content.decode()) == []

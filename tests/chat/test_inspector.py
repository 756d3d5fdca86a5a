"""The page for developers: who may see it, and what it offers."""

import pytest
from django.test import override_settings
from django.urls import reverse

from chat import inspector, views
from project.routing import websocket_urlpatterns


def text(response):
    return response.content.decode()


# --- who may see it ---------------------------------------------------------------------------------------------------


def test_visitors_are_asked_to_sign_in_and_led_back(client):
    response = client.get(reverse("inspector"))
    assert (response.status_code, response["Location"]) == (302, "/accounts/login/?next=/inspector/")


def test_users_are_told_that_it_is_not_for_them(sign_in):
    response = sign_in("john").get(reverse("inspector"))
    assert response.status_code == 403
    assert "You may not do this" in text(response)
    assert "data-inspector" not in text(response)


def test_staff_see_it(sign_in):
    response = sign_in("admin").get(reverse("inspector"))
    assert response.status_code == 200
    assert "data-inspector" in text(response)


@pytest.mark.parametrize("username", [None, "john"])
def test_everybody_sees_it_on_a_developers_machine(client, sign_in, username):
    with override_settings(DEBUG=True):
        response = (sign_in(username) if username else client).get(reverse("inspector"))
    assert response.status_code == 200


# --- what it offers ---------------------------------------------------------------------------------------------------


def test_the_page_holds_no_inline_script_or_style_and_no_session_key(sign_in):
    browser = sign_in("admin")
    html = text(browser.get(reverse("inspector")))
    assert "<script>" not in html
    assert "style=" not in html
    assert browser.session.session_key not in html


def test_what_the_script_needs_is_that_of_the_settings(sign_in):
    more = {"WEBSOCKET_URL": "/live/", "WS4REDIS_HEARTBEAT": "<beat>", "WSLOOP": {"MAX_MESSAGE_SIZE": 1000}}
    with override_settings(**more):
        html = text(sign_in("admin").get(reverse("inspector")))
    assert 'data-websocket-url="/live/" data-heartbeat="&lt;beat&gt;" data-max-message-size="1000"' in html


def test_the_facilities_are_those_of_the_pages():
    pages = [each for each in vars(views).values() if isinstance(each, type) and hasattr(each, "facility")]
    assert {each.facility for each in pages} | {views.INBOX} <= set(inspector.FACILITIES)


def test_the_consumers_are_routed():
    for path in inspector.CONSUMERS:
        assert any(pattern.resolve(f"ws/{path}") for pattern in websocket_urlpatterns), path

"""Which consumer serves a path, which routes are refused when the server starts, and the scope."""

import asyncio
import functools
import gc
import types
import weakref

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.cached_db import SessionStore as CachedSessions
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory
from django.urls import include, path, re_path, register_converter
from django.urls.converters import StringConverter
from django.utils.functional import SimpleLazyObject

from wsloop.consumers import AsyncWebsocketConsumer, WebsocketConsumer
from wsloop.routing import Match, Routes, captured, scope


class Echo(WebsocketConsumer):
    pass


class Chat(WebsocketConsumer):
    def __init__(self, color="red"):
        self.color = color


class Even(StringConverter):
    def to_python(self, value):
        number = int(value)
        if number % 2:
            raise ValueError
        return number


register_converter(Even, "even")

included = [path("echo/", Echo.as_websocket()), re_path(r"^(\d+)/$", Chat.as_websocket())]


# Matching.


def kwargs(routes, path):
    match = routes.match(path)
    return match and match.kwargs


def test_a_path_that_matches_no_pattern_is_none():
    routes = Routes([path("ws/echo/", Echo.as_websocket())])
    assert routes.match("/ws/echo/").consumer_class is Echo
    for other in ("/ws/echo", "/ws/echo/x", "/ws/", "/", "", "/ws/news", "/ws/x/ws/echo/", "ws/echo/", "//ws/echo/"):
        assert routes.match(other) is None, other


@pytest.mark.parametrize("routes", [Routes(), Routes([]), Routes(iter(()))])
def test_without_patterns_everything_is_a_facility(routes):
    assert routes.match("/ws/echo/") is None


def test_what_a_pattern_captures():
    routes = Routes(
        [
            path("ws/room/<slug:room_name>/", Chat.as_websocket()),
            path("ws/even/<even:number>/", Chat.as_websocket()),
            re_path(r"^ws/chat/(?P<room_name>\w+)/$", Chat.as_websocket()),
            re_path(r"ws/(\d+)/(\d+)/$", Chat.as_websocket()),
            path("ws/more/", Chat.as_websocket(), {"more": 1}),
        ]
    )
    assert kwargs(routes, "/ws/room/the-lobby/") == {"room_name": "the-lobby"}
    assert kwargs(routes, "/ws/even/42/") == {"number": 42}
    assert routes.match("/ws/even/43/") is None
    assert kwargs(routes, "/ws/chat/lobby/") == {"room_name": "lobby"}
    assert routes.match("/ws/1/2/").args == ("1", "2")
    assert kwargs(routes, "/ws/more/") == {"more": 1}
    assert kwargs(routes, "/ws/chat/größe/") == {"room_name": "größe"}
    assert routes.match("/ws/chat/lobby/\n") is None


def test_the_first_pattern_wins():
    routes = Routes([path("ws/echo/", Echo.as_websocket()), path("ws/<str:name>/", Chat.as_websocket())])
    assert routes.match("/ws/echo/").consumer_class is Echo
    assert routes.match("/ws/other/").consumer_class is Chat


@pytest.mark.parametrize("how", [included, (included, "app"), f"{__name__}.urls"])
@pytest.mark.parametrize("prefix", [lambda what: path("ws/", what), lambda what: re_path(r"^ws/", what)])
def test_include_works(how, prefix, monkeypatch):
    if isinstance(how, str):
        monkeypatch.setitem(__import__("sys").modules, how, types.SimpleNamespace(urlpatterns=included))
    routes = Routes([prefix(include(how))])
    assert routes.match("/ws/echo/").consumer_class is Echo
    assert routes.match("/ws/7/").args == ("7",)
    assert routes.match("/ws/x/") is None


def test_include_carries_what_was_captured_before():
    routes = Routes([path("ws/<slug:site>/", include([path("<int:room>/", Chat.as_websocket())]))])
    assert kwargs(routes, "/ws/main/7/") == {"site": "main", "room": 7}


def test_each_socket_gets_a_consumer_of_its_own_with_the_arguments():
    match = Routes([path("ws/chat/", Chat.as_websocket(color="blue"))]).match("/ws/chat/")
    one, two = match.make(), match.make()
    assert one is not two
    assert (one.color, two.color) == ("blue", "blue")


# A consumer in each of its forms.


class Positional(WebsocketConsumer):
    def __init__(self, room, *, color):
        self.made = room, color
        self.members = []


class Greeting(AsyncWebsocketConsumer):
    pass


@pytest.mark.parametrize("each", [Echo, Echo(), Echo.as_asgi(), Greeting, Greeting(), Greeting.as_asgi()])
def test_a_class_an_instance_or_as_asgi(each):
    match = Routes([path("ws/<str:room>/", each)]).match("/ws/lobby/")
    assert match.consumer_class in (Echo, Greeting)
    assert (match.application, match.kwargs) == (None, {"room": "lobby"})
    made = match.make()
    assert type(made) is match.consumer_class
    assert made is not each


def test_an_instance_stands_for_its_class_and_arguments_so_that_sockets_share_nothing():
    routes = Routes([path("ws/", Positional("lobby", color="blue"))])
    one, two = (routes.match("/ws/").make() for _ in range(2))
    assert one.made == two.made == ("lobby", "blue")
    assert one.members is not two.members


@pytest.mark.parametrize("base", [WebsocketConsumer, AsyncWebsocketConsumer])
@pytest.mark.parametrize(
    "form", [lambda it: it, lambda it: it(), lambda it: it.as_asgi(), lambda it: it.as_websocket()]
)
def test_one_with_a_call_of_its_own_is_an_application(base, form):
    called = []

    class Wrapped(base):
        async def __call__(self, scope, receive, send):
            called.append((self, scope))

    each = form(Wrapped)
    match = Routes([path("ws/", each)]).match("/ws/")
    assert match.consumer_class is None
    for number in range(2):
        asyncio.run(match.application({"number": number}, None, None))
    assert [scope for _, scope in called] == [{"number": 0}, {"number": 1}]
    assert called[0][0] is not called[1][0] and each not in (called[0][0], called[1][0])


def test_one_without_a_layer_needs_no_setting(with_settings):
    with_settings(CHANNEL_LAYERS={"default": {"BACKEND": "another.Layer"}})

    class Alone(Echo):
        channel_layer_alias = None

    assert Routes([path("ws/", Alone), path("ws/app/", application)])
    with pytest.raises(ImproperlyConfigured, match=r"Echo\.channel_layer_alias: .* BACKEND 'another\.Layer', but"):
        Routes([path("ws/", Echo)])


# Other ASGI applications.


async def application(scope, receive, send):
    pass


class Middleware:
    def __init__(self, app=None):
        self.app = app

    async def __call__(self, scope, receive, send):
        pass


class Router(Middleware):
    """As Channels' ``URLRouter``."""

    _path_routing = True


async def as_asgi_of_channels(scope, receive, send):
    pass


as_asgi_of_channels.consumer_class = Middleware  # none of ours
as_asgi_of_channels.consumer_initkwargs = {}


@pytest.mark.parametrize(
    "each",
    [
        application,
        Middleware(),
        Middleware().__call__,
        functools.partial(application),
        as_asgi_of_channels,
        Middleware(Echo.as_asgi()),
    ],
)
def test_an_asgi_application(each):
    match = Routes([path("ws/<str:room>/", each, {"more": 1})]).match("/ws/lobby/")
    assert match.application is each
    assert (match.consumer_class, match.kwargs, match.remaining) == (None, {"room": "lobby", "more": 1}, "")


@pytest.mark.parametrize(
    ("patterns", "where", "remaining"),
    [
        ([path("ws/", Router())], "/ws/chat/lobby/", "chat/lobby/"),
        ([path("", Router())], "/ws/chat/lobby/", "ws/chat/lobby/"),
        ([re_path(r"^ws/", Middleware(Router()))], "/ws/chat/lobby/", "chat/lobby/"),
        ([re_path(r"", Middleware(Router()))], "/ws/chat/lobby/", "ws/chat/lobby/"),
        ([path("ws/", include([path("x/", application), re_path("^chat/", Router())]))], "/ws/chat/lobby/", "lobby/"),
        ([path("ws/", include([path("x/", application)])), re_path("^ws/", Router())], "/ws/chat/", "chat/"),
        ([path("ws/<slug:room>/", application)], "/ws/lobby/", ""),
    ],
)
def test_an_application_gets_the_path_behind_its_pattern(patterns, where, remaining):
    match = Routes(patterns).match(where)
    assert match.remaining == remaining
    assert captured(match) == {"path_remaining": remaining, "url_route": {"args": (), "kwargs": match.kwargs}}


def test_a_path_without_a_router_ends_where_it_ends():
    routes = Routes([path("ws/", application), path("ws/chat/", Middleware())])
    assert routes.match("/ws/chat/lobby/") is None
    with pytest.raises(ImproperlyConfigured, match="must begin with 'ws/'"):
        Routes([path("", Middleware())])


# Refused when the server starts.


def view(request):
    pass


@pytest.mark.parametrize("wrong", ["ws/echo/", Echo, Echo.as_websocket(), None, ("ws/", Echo.as_websocket())])
def test_what_is_no_pattern(wrong):
    with pytest.raises(ImproperlyConfigured, match=r"websocket_urlpatterns must be path\(\) and re_path\(\), not"):
        Routes([wrong])


async def async_view(request):
    pass


class DoubleCallable:
    """An application of ASGI 2, and a class that is no consumer."""

    def __init__(self, scope):
        pass

    async def __call__(self, receive, send):
        pass


class Callable:
    def __call__(self, scope, receive, send):
        pass


@pytest.mark.parametrize("wrong", [view, async_view, DoubleCallable, DoubleCallable({}), Callable(), lambda *_: None])
@pytest.mark.parametrize("patterns", [lambda it: path("ws/x/", it), lambda it: path("ws/", include([path("x/", it)]))])
def test_what_leads_to_something_else(patterns, wrong):
    with pytest.raises(ImproperlyConfigured, match=r"'ws/x/' must lead to a consumer, MyConsumer.as_websocket\(\), or"):
        Routes([patterns(wrong)])


def test_a_layer_that_does_not_exist_is_refused():
    class Other(WebsocketConsumer):
        channel_layer_alias = "other"

    with pytest.raises(ImproperlyConfigured, match=r"Other\.channel_layer_alias: CHANNEL_LAYERS has no channel"):
        Routes([path("ws/", Other.as_asgi())])


@pytest.mark.parametrize(
    "pattern",
    [
        path("echo/", Echo.as_websocket()),
        path("/ws/echo/", Echo.as_websocket()),
        path("", Echo.as_websocket()),
        path("w", Echo.as_websocket()),
        re_path(r"^/ws/echo/$", Echo.as_websocket()),
        re_path(r"echo/(\d+)", Echo.as_websocket()),
        path("chat/", include([path("ws/", Echo.as_websocket())])),
        path("chat/", include(included)),
        path("wsx/<int:number>/", Echo.as_websocket()),
    ],
)
def test_routes_that_no_socket_would_get_to(pattern):
    with pytest.raises(ImproperlyConfigured, match=r"must begin with 'ws/', as WEBSOCKET_URL does"):
        Routes([path("ws/fine/", Echo.as_websocket()), pattern])


@pytest.mark.parametrize(
    "pattern",
    [
        path("ws/", Echo.as_websocket()),
        path("<str:all>/echo/", Echo.as_websocket()),
        re_path(r"^w(s|t)/echo/$", Echo.as_websocket()),
        re_path(r".*", Echo.as_websocket()),
        path("ws/", include([path("", Echo.as_websocket())])),
        path("", include([path("ws/echo/", Echo.as_websocket())])),
        re_path(r"^", include([re_path(r"^ws/echo/$", Echo.as_websocket())])),
    ],
)
def test_routes_that_some_socket_may_get_to(pattern):
    Routes([pattern])


def test_websocket_url_is_what_the_site_has_set(with_settings):
    with_settings(WEBSOCKET_URL="/live/sockets/")
    Routes([path("live/sockets/echo/", Echo.as_websocket())])
    with pytest.raises(ImproperlyConfigured, match=r"must begin with 'live/sockets/'"):
        Routes([path("ws/echo/", Echo.as_websocket())])


# The scope.


@pytest.fixture
def request_():
    """Make the request of a handshake: ``request_("/ws/chat/", HTTP_ORIGIN="…")``."""

    def make(where="/ws/chat/", **meta):
        request = RequestFactory().get(where, **meta)
        request.user = request.session = None
        return request

    return make


MATCH = Match(Chat, {}, (), {"room_name": "lobby"})


def test_the_scope_has_what_the_page_says(request_):
    request = request_(
        "/ws/chät/lobby/?a=%C3%A4&b",
        HTTP_HOST="testserver",
        HTTP_X_MORE="more",
        HTTP_SEC_WEBSOCKET_PROTOCOL="soap, chat ,,x",
        HTTP_COOKIE="a=1; b=2",
        REMOTE_ADDR="8.8.8.8",
        REMOTE_PORT="4711",
    )
    told = scope(request, MATCH)
    assert set(told) == {
        *("type", "path", "query_string", "headers", "cookies", "client", "subprotocols", "user", "session"),
        "url_route",
    }
    assert told["type"] == "websocket"
    assert told["path"] == "/ws/chät/lobby/"
    assert told["query_string"] == b"a=%C3%A4&b"
    assert dict(told["headers"])[b"x-more"] == b"more"
    assert dict(told["headers"])[b"host"] == b"testserver"
    assert told["cookies"] == {"a": "1", "b": "2"}
    assert told["client"] == ("8.8.8.8", 4711)
    assert told["subprotocols"] == ["soap", "chat", "x"]
    assert told["url_route"] == {"args": (), "kwargs": {"room_name": "lobby"}}
    assert isinstance(told["user"], AnonymousUser)


def test_headers_are_pairs_of_bytes_without_the_cookie(request_):
    headers = scope(request_(HTTP_COOKIE="sessionid=secret", HTTP_X_NAME="Grüße"), MATCH)["headers"]
    assert all(isinstance(name, bytes) and isinstance(value, bytes) and name == name.lower() for name, value in headers)
    assert "secret" not in str(headers)
    assert (b"x-name", "Grüße".encode("latin-1")) in headers


def test_what_no_header_may_have_is_replaced(request_):
    assert (b"x-name", b"?") in scope(request_(HTTP_X_NAME="€"), MATCH)["headers"]


@pytest.mark.parametrize("meta", [{}, {"REMOTE_PORT": ""}, {"REMOTE_PORT": "abc"}, {"REMOTE_PORT": None}])
def test_a_client_without_a_port(request_, meta):
    request = request_(REMOTE_ADDR="")
    request.META.update(meta)
    assert scope(request, MATCH)["client"] == ("", 0)


def test_an_anonymous_visitor_has_a_session_that_can_be_asked(request_):
    session = scope(request_(), MATCH)["session"]
    assert isinstance(session, SessionStore)
    assert session.session_key is None


def test_its_class_is_that_of_the_site(request_, with_settings):
    with_settings(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
    assert isinstance(scope(request_(), MATCH)["session"], CachedSessions)


def test_user_and_session_are_those_of_the_handshake(request_):
    request = request_()
    user, request.session = User(username="john"), SessionStore("key")
    request.user = SimpleLazyObject(lambda: user)
    told = scope(request, MATCH)
    assert told["user"] is user
    assert told["session"] is request.session


def test_a_request_without_either(request_):
    request = request_()
    del request.user, request.session
    assert isinstance(scope(request, MATCH)["user"], AnonymousUser)


class Environ(dict):
    """A dictionary that can be watched with a weak reference."""


def test_the_scope_does_not_keep_the_request(request_):
    def make():
        environ = Environ(RequestFactory().get("/ws/chat/", HTTP_COOKIE="a=1").environ)
        request = WSGIRequest(environ)
        request.session = SessionStore("key")
        request.user = SimpleLazyObject(lambda: (request, User(username="john"))[1])
        return scope(request, MATCH), [weakref.ref(request), weakref.ref(environ)]

    told, references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert told["user"].username == "john"

"""The WSGI callable that ``wsgi.py`` gives the URLs under ``WEBSOCKET_URL``.

It runs the stages of setting a socket up, in the request's greenlet where blocking is allowed, and turns what goes
wrong into an HTTP response. Only when Redis has acknowledged the subscriptions does the 101 go out: open means
subscribed. Then the connection belongs to the hub and the request ends. This module must not know sockets.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import gevent
from django.core.exceptions import DisallowedHost, ImproperlyConfigured, PermissionDenied, SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from gevent import monkey
from redis.exceptions import RedisError
from websockets.extensions import Extension
from websockets.frames import CloseCode
from ws4redis.wsgi_server import WebsocketWSGIServer

from wsloop import access, checks, conf, handshake, metrics, pool, redaction, subscriptions, tokens, transport
from wsloop.access import Access, close_databases
from wsloop.broker import Broker, Unavailable
from wsloop.connection import Bounds, Connection
from wsloop.drain import Drain
from wsloop.handshake import Refused
from wsloop.hub import Hub, Joining, Visitor
from wsloop.store import RedisMessage
from wsloop.transport import Headers, Takeover, Transport

logger = logging.getLogger("wsloop.server")

RETRY_AFTER = 5  # seconds; the broker tries to reach Redis at least as often


class Engine:
    """What one process has for all of its sockets: hub, broker and access, made when the first socket comes."""

    def __init__(self) -> None:
        self.hub = Hub(
            left=lambda channels: self.broker.unsubscribe(channels),
            expired=lambda connections: self.access.expired(connections),
        )
        self.access = Access(self.hub)
        self.broker = Broker(
            deliver=self.hub.deliver,
            failed=self._failed,
            control=self.access.heard,
            connected=self.access.connected,
        )
        if transport.inside_uwsgi():
            checks.warn_about_uwsgi(transport.uwsgi_option)
        transport.at_exit(lambda: self.hub.close_all(CloseCode.SERVICE_RESTART, "server restarting"))

    def _failed(self) -> None:
        self.hub.close_all(CloseCode.INTERNAL_ERROR, "internal error")


@functools.cache
def engine() -> Engine:
    """Return the engine of this process. The first call must come from a worker, not from the process that forks it."""
    return Engine()


@functools.cache
def listener() -> Listener:
    """Return the handler that all sockets share which may not publish."""
    return Listener(engine().hub)


class Listener:
    """The handler of a socket that may not publish: what it sends is ignored, as in ws4redis."""

    def __init__(self, hub: Hub) -> None:
        self.pausing, self.closing, self.closed = hub.pausing, hub.closing, hub.closed

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        pass


class Speaker(Listener):
    """The handler of a socket that publishes to ``channels``.

    Args:
        echo: whether the socket wants its own messages back.
    """

    def __init__(self, engine: Engine, channels: Iterable[bytes], echo: bool) -> None:
        super().__init__(engine.hub)
        self._broker = engine.broker
        self._channels = tuple(channels)
        self._echo = echo

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        if payload != conf.heartbeat():
            self._publish(connection, self._channels, payload, conf.expire())

    def _publish(self, connection: Connection, channels: Sequence[bytes], payload: bytes, expire: int) -> None:
        connection.hold()  # the socket is not read before Redis has taken what it sent
        origin = None if self._echo else connection
        self._broker.publish(channels, payload, expire, origin=origin, done=connection.release)


class CustomSpeaker(Speaker):
    """The handler of a socket whose messages go through the ``publish_message`` of the site's own subscriber class."""

    def __init__(self, engine: Engine, subscriber: subscriptions.Subscriber, echo: bool) -> None:
        super().__init__(engine, subscriptions.as_bytes(subscriber._publishers), echo)
        self._subscriber = subscriber
        self._inbox: Drain[tuple[Connection, bytes]] = Drain(self._handle)

    def received(self, connection: Connection, payload: bytes, text: bool) -> None:
        if payload != conf.heartbeat():
            connection.hold()  # the socket is not read while its message is worked on
            self._inbox.put((connection, payload))

    def _handle(self, items: list[tuple[Connection, bytes]]) -> None:
        for connection, payload in items:
            self._subscriber._connection.publish_hook = functools.partial(self._publish, connection)
            try:
                self._subscriber.publish_message(RedisMessage(payload))
            except Exception:
                logger.exception("%s.publish_message failed", type(self._subscriber).__name__)
                connection.close(CloseCode.INTERNAL_ERROR, "internal error")
            finally:
                connection.release()
        close_databases()


class Opening:
    """A WebSocket that is being set up: what is needed to open it once the 101 is out, or to call it off.

    Args:
        takeover: takes the request's connection over.
        answer: headers of the 101.
        extensions: those that it agrees to.
        mark: of ``access``, from before the visitor was looked up.

    Attributes:
        channels: those that the broker has subscribed to for it.
        news: returns the messages that it gets first.
    """

    def __init__(self, takeover: Takeover, answer: Headers, extensions: Sequence[Extension], mark: int) -> None:
        self.takeover = takeover
        self.channels: tuple[bytes, ...] = ()
        self.news: Callable[[], Iterable[bytes]] = tuple
        self._answer = answer
        self._extensions = extensions
        self._mark = mark

    def join(self, channels: Iterable[bytes], visitor: Visitor, handler: Listener) -> Joining:
        """Have the hub keep what arrives for it from now on."""
        self._handler = handler
        self._joining = engine().hub.join(channels, visitor)
        try:
            _make_room(visitor, joined=1)  # others may have come meanwhile
        except Refused:
            self.cancel()
            raise
        return self._joining

    def cancel(self) -> None:
        """Call it off. May be called again."""
        engine().hub.cancel(self._joining)
        channels, self.channels = self.channels, ()
        engine().broker.unsubscribe(channels)

    def open(self, start_response: Callable[..., Any]) -> Transport | None:
        """Send the 101 and hand the connection to the hub.

        Returns:
            its transport, or None if it could not be opened after the 101.

        Raises:
            transport.Gone: if the client has hung up meanwhile.
        """
        try:
            bounds = _bounds()
            taken = self.takeover.accept(start_response, self._answer)
        except BaseException:
            self.cancel()
            raise
        connection = Connection(taken, self._handler, bounds, self._extensions)
        try:
            engine().hub.complete(self._joining, connection, self.news)
        except Exception:
            # The 101 is out, so there is no response to tell it with.
            logger.exception("a WebSocket could not be opened")
            connection.abort()
            return None
        if engine().access.mark() != self._mark:
            engine().access.recheck(connection)  # the visitor may be another one since
        return taken


def _bounds() -> Bounds:
    rate, burst = conf.option("RATE_LIMIT") or (None, 0)
    sizes = conf.option("MAX_MESSAGE_SIZE"), conf.option("MAX_QUEUED_BYTES")
    return _shared(Bounds(*sizes, rate, burst, conf.compress_from()))


@functools.lru_cache(maxsize=1)
def _shared(bounds: Bounds) -> Bounds:
    """Return one object for equal ones: each connection keeps it."""
    return bounds


def _log_without_token(environ: dict[str, Any], start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the server from logging the request, and return a ``start_response`` that logs it without its secret."""
    transport.keep_out_of_log()
    uri = environ.get("REQUEST_URI") or f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"  # as sent, with uWSGI
    line = redaction.request_line(environ.get("REQUEST_METHOD", ""), uri)

    def logged(status: str, headers: Headers) -> Any:
        logger.info("%s %s", line, status)
        return start_response(status, headers)

    return logged


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Refuse a handshake that takes too long, wherever it waits.

    Raises:
        Refused: 503.
    """
    deadline = gevent.Timeout(conf.option("HANDSHAKE_TIMEOUT"))
    try:
        with deadline:
            yield
    except gevent.Timeout as exc:
        if exc is not deadline:
            raise RuntimeError("code of the site has let a gevent.Timeout out") from exc  # it is no Exception
        metrics.reached("HANDSHAKE_TIMEOUT")
        logger.warning("refused: a handshake took longer than %g s", deadline.seconds)
        raise _try_again(HTTPStatus.SERVICE_UNAVAILABLE, "The WebSocket could not be set up in time.") from None


def _make_room(visitor: Visitor | None = None, joined: int = 0) -> None:
    """Refuse one more connection if there are too many.

    Raises:
        Refused: 503 or 429.
    """
    setting = engine().hub.crowded(visitor, joined)
    if setting is None:
        return
    metrics.reached(setting)
    if setting == "MAX_CONNECTIONS":
        raise _try_again(HTTPStatus.SERVICE_UNAVAILABLE, "This server has as many WebSockets as it can hold.")
    if setting == "MAX_CONNECTIONS_PER_ADDRESS" and visitor is not None:
        logger.warning("refused: %s has too many WebSockets; if it is a proxy, see TRUSTED_PROXIES", visitor.address)
    raise _try_again(
        HTTPStatus.TOO_MANY_REQUESTS, "You have too many WebSockets open. Close some of them, perhaps in other windows."
    )


def _try_again(status: HTTPStatus, reason: str) -> Refused:
    return Refused(status, f"{reason} Try again in a few seconds.", [("Retry-After", str(RETRY_AFTER))])


class WebsocketServer(WebsocketWSGIServer):  # type: ignore[misc]
    """ws4redis's WebSocket server with another loop: the application for URLs under ``WEBSOCKET_URL``.

    Args:
        redis_connection: a Redis client for ws4redis's base class; wsloop's own one by default.
        handlers: facilities that are no notifications but code, by their names: each is a subclass of
            :class:`Listener`, whose ``received`` gets the messages of all of its sockets.

    Attributes:
        subprotocols: names that a client may be answered with as ``Sec-WebSocket-Protocol``, the preferred one first.
            "ws4redis" is the bare messages that are spoken anyway: browsers that offer a token as a subprotocol need
            another one to be answered with.

    Raises:
        ImproperlyConfigured: if a setting is wrong, or uWSGI's process is not patched by gevent.
    """

    subprotocols: tuple[str, ...] = ("ws4redis",)

    def __init__(
        self, redis_connection: Any = None, handlers: Mapping[str, Callable[[Hub], Listener]] | None = None
    ) -> None:
        if transport.inside_uwsgi() and not monkey.is_module_patched("socket"):
            raise ImproperlyConfigured(
                "wsgi.py must begin with `from gevent import monkey; monkey.patch_all()`, before any other import"
            )
        conf.validate()
        conf.adapt_ws4redis()
        super().__init__(redis_connection or pool.client())
        self.Subscriber = subscriptions.subscriber_class(conf.subscriber_path())
        self._policy = conf.callback("WS4REDIS_ALLOWED_CHANNELS")
        self._authenticate = conf.callback("WS4REDIS_PROCESS_REQUEST") or self.process_request
        self._handlers = dict(handlers or {})
        self._made: dict[str, Listener] = {}

    def process_request(self, request: HttpRequest) -> None:
        """Find the user: by a token (see ``tokens``), or session and user by the cookie, both None without one.

        A session that was signed with one of ``SECRET_KEY_FALLBACKS`` keeps its key: Django would give it another, and
        there is no response here that could tell the browser, which would then be signed out.
        """
        if tokens.authenticate(request):
            return
        super().process_request(request)
        if request.session is not None:
            request.session.cycle_key = lambda: None  # type: ignore[method-assign]

    @property
    def websockets(self) -> set[Connection]:
        """The open connections of this process (as in ws4redis)."""
        return engine().hub.connections

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            if tokens.PARAMETER in unquote(environ.get("QUERY_STRING", "")).lower():
                start_response = _log_without_token(environ, start_response)
            with _deadline():
                opening = self._prepare(environ)
            taken = opening.open(start_response)
        except transport.Gone as exc:
            logger.debug("the client has gone before the 101: %s", exc.__cause__)
            return []
        except Exception as exc:
            return self._refuse(exc, start_response)
        finally:
            close_databases()
        return opening.takeover.finish(taken) if taken else []

    def _prepare(self, environ: dict[str, Any]) -> Opening:
        """Do all that comes before the 101, cheap checks first."""
        request = WSGIRequest(environ)
        facility = subscriptions.facility(request)
        handshake.check_sizes(environ, facility)
        compression = conf.option("COMPRESS_FROM") is not None and conf.facility_option(facility, "compression")
        answer, extensions = handshake.negotiate(environ, self.subprotocols, compression)
        takeover = transport.claim(environ)
        _make_room()
        handshake.check_origin(request)
        mark = engine().access.mark()  # before the database is asked
        self._authenticate(request)
        visitor = access.visitor(request, handshake.client_address(environ))
        _make_room(visitor)
        opening = Opening(takeover, answer, extensions, mark)
        if facility in self._handlers:
            handler = self._made.get(facility) or self._made.setdefault(
                facility, self._handlers[facility](engine().hub)
            )
            opening.join((), visitor, handler)
            if visitor.user is not None:
                engine().broker.listen()  # needs no Redis for itself, but must end with its session
        else:
            self._subscribe(opening, *self._subscriber(request), visitor)
        return opening

    def _subscriber(self, request: WSGIRequest) -> tuple[subscriptions.Subscriber, bool]:
        """Return the subscriber with what the client asked for and may have, and whether it wants its own messages."""
        channels, echo = self.process_subscriptions(request)
        if self._policy is not None:
            channels = list(self._policy(request, channels))
        subscriptions.check_facility(request, channels)
        subscriber = self.Subscriber(subscriptions.Client())
        subscriber.set_pubsub_channels(request, channels)
        return subscriber, echo

    def process_subscriptions(self, request: HttpRequest) -> tuple[list[str], bool]:
        """Return the channels that the query asks for, and whether it asks for the echo; see ``subscriptions``."""
        return subscriptions.requested(request, self.possible_channels)

    def _subscribe(self, opening: Opening, subscriber: subscriptions.Subscriber, echo: bool, visitor: Visitor) -> None:
        """Subscribe and read the kept messages. When this returns all that is published will reach the socket."""
        broker = engine().broker
        channels = tuple(subscriber._subscription.channels)
        handler = self._handler(subscriber, echo)
        broker.subscribe(channels)
        opening.channels = channels
        try:
            # Not earlier: what comes before the acknowledgement may be from before a gap, and older than what is kept.
            joining = opening.join(channels, visitor, handler)
            recorder = subscriptions.Recorder()
            subscriber.send_persisted_messages(recorder)
            broker.sync()
            seen = len(joining.messages)
            if joining.too_much:
                metrics.reached("MAX_QUEUED_BYTES")
                raise Unavailable("more is published than a new connection can hold")
            opening.news = lambda: joining.news(recorder.sent, seen)
        except BaseException:
            opening.cancel()
            raise

    def _handler(self, subscriber: subscriptions.Subscriber, echo: bool) -> Listener:
        if type(subscriber).publish_message is not subscriptions.Subscriber.publish_message:
            return CustomSpeaker(engine(), subscriber, echo)
        if not subscriber._publishers:
            return listener()
        return Speaker(engine(), subscriptions.as_bytes(subscriber._publishers), echo)

    def _refuse(self, error: Exception, start_response: Callable[..., Any]) -> Iterable[bytes]:
        refused = refusal(error)
        body = f"{refused.reason}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        headers += [("Cache-Control", "no-store"), *refused.headers]
        start_response(f"{refused.status.value} {refused.status.phrase}", headers)
        return [body]


def refusal(error: Exception) -> Refused:
    """Return how the client is told of an error while its socket was set up. What it tells is no secret."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, PermissionDenied):
        return Refused(HTTPStatus.FORBIDDEN, "This site does not allow you to open this WebSocket. Sign in, perhaps.")
    if isinstance(error, DisallowedHost):
        logger.warning("refused: %s", error)
        return Refused(HTTPStatus.BAD_REQUEST, "The Host of the request is not one of the site's; see ALLOWED_HOSTS.")
    if isinstance(error, SuspiciousOperation):
        logger.warning("refused: %s", error)
        return Refused(HTTPStatus.BAD_REQUEST, "The request is not acceptable; perhaps it has too many parameters.")
    if isinstance(error, transport.Unsupported):
        logger.error("refused: %s", error)
        return Refused(HTTPStatus.NOT_IMPLEMENTED, str(error))
    if isinstance(error, (Unavailable, RedisError)):
        logger.warning("refused: %s", error)
        return _try_again(HTTPStatus.SERVICE_UNAVAILABLE, "Messages cannot be delivered at the moment.")
    logger.error("a WebSocket could not be set up", exc_info=error)
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The WebSocket could not be set up; the site's log says why.")

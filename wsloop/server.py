"""The WSGI callable that ``wsgi.py`` gives the URLs under ``WEBSOCKET_URL``.

It runs the stages of setting a socket up, in the request's greenlet where blocking is allowed, and turns what goes
wrong into an HTTP response. Only when Redis has acknowledged the subscriptions does the 101 go out: open means
subscribed. Then the connection belongs to the hub and the request ends. This module must not know sockets.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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

from wsloop import checks, conf, handshake, identity, layers, metrics, redaction, routing, tokens
from wsloop.backend import pool, redis_options
from wsloop.backend.keys import control_channel
from wsloop.db import close_databases
from wsloop.delivery.broker import Broker, Unavailable
from wsloop.delivery.events import BrokerEvents
from wsloop.facilities import subscriptions
from wsloop.facilities.inbound import Correspondent, CustomSpeaker, Listener, Speaker
from wsloop.facilities.recovery import Recovery
from wsloop.greenlets import logged, spawn
from wsloop.presence import presence_channel, who
from wsloop.protocol import resume_tokens
from wsloop.protocol.dialects import BARE, DIALECTS, SILENT, Dialect
from wsloop.protocol.messages import Message, Position
from wsloop.refusals import Refused, try_again
from wsloop.runtime.groups import Members, WorkerLine
from wsloop.runtime.runner import Consumers, Runner
from wsloop.sockets import transport
from wsloop.sockets.admission import Visitor
from wsloop.sockets.connection import Connection
from wsloop.sockets.hub import Hub
from wsloop.sockets.joining import Joining
from wsloop.sockets.limits import Bounds
from wsloop.sockets.transport import Headers, Takeover, Transport
from wsloop.visitors.attendance import Presence
from wsloop.visitors.session_watch import Access

logger = logging.getLogger("wsloop.server")

LEAVING_RATE = 200  # sockets closed a second when a worker ends: a worker does more handshakes than that
LEAVING_TIME = 4.0  # seconds that it may take, however many there are: half of what uWSGI and init systems grant
LEAVING_STEP = 0.05  # seconds
LAST_WORDS = 2.0  # seconds for what consumers do when their sockets have been closed


class Engine(BrokerEvents):
    """What one process has for all of its sockets: hub, broker and access, made when the first socket comes."""

    def __init__(self) -> None:
        self.hub = Hub(
            left=self._left,
            expired=lambda connections: self.access.expired(connections),
        )
        self.access = Access(self.hub)
        self.broker = Broker(self)
        self.broker.attach(control_channel(), self.access.heard)
        self.members = Members(self.broker)
        self.broker.attach(self.members.channel, self.members.heard)
        self.consumers = Consumers(self.hub, self.members)
        layer = layers.get_channel_layer()
        layer.local, layer.line = self.members, WorkerLine()
        self.presence = Presence(close_databases)
        if transport.inside_uwsgi():
            checks.warn_about_uwsgi(transport.uwsgi_option)
        transport.at_exit(lambda: logged(self._take_leave))

    # What the broker tells.

    def message(self, channel: bytes, message: Message, origin: Any = None) -> None:
        self.hub.deliver(channel, message, origin)
        self.members.deliver(channel, message.payload)

    def lost(self, channel: bytes, position: Position) -> None:
        self.hub.lost(channel, position)

    def failed(self) -> None:
        self.hub.close_all(CloseCode.INTERNAL_ERROR, "internal error")

    def connected(self) -> None:
        self.access.connected()
        self.members.resumed()

    def settle(self, channels: Collection[bytes], timeout: float) -> None:
        self.hub.settle(channels, timeout)

    # What the hub tells, and the server.

    def _left(self, connection: Connection) -> None:
        self.broker.unsubscribe(connection.channels)
        if connection.place is not None:
            self.presence.left(*connection.place)

    def _take_leave(self) -> None:
        """Close all sockets, not all at once: their clients come back, each to a handshake and its history."""
        connections = list(self.hub.connections)
        steps = math.ceil(min(len(connections) / LEAVING_RATE, LEAVING_TIME) / LEAVING_STEP) or 1
        for number in range(steps):
            for connection in connections[number::steps]:
                connection.close(CloseCode.SERVICE_RESTART, "server restarting")
            if number + 1 < steps:
                gevent.sleep(LEAVING_STEP)
        self.hub.close_all(CloseCode.SERVICE_RESTART, "server restarting")  # those whose handshake was under way
        self.consumers.wait(LAST_WORDS)


@functools.cache
def engine() -> Engine:
    """Return the engine of this process. The first call must come from a worker, not from the process that forks it."""
    return Engine()


@functools.cache
def listener(dialect: Dialect) -> Listener:
    """Return the handler that all sockets of a dialect share which may not publish."""
    return Correspondent(engine().hub, None) if dialect.tells else Listener(engine().hub)


class Opening:
    """A WebSocket that is being set up: what is needed to open it once the 101 is out, or to call it off.

    Args:
        takeover: takes the request's connection over.
        answer: headers of the 101.
        extensions: those that it agrees to.
        mark: of ``access``, from before the visitor was looked up.

    Attributes:
        channels: those that the broker has subscribed to for it.
        dialect: what it will speak.
        place: for presence: the facility and the user's name; None where it is not counted.
        news: returns what it gets first.
        recovery: what has still to be sent to it once it is open; None: nothing.
        runner: of the consumer that serves it; None: it is a facility's.
    """

    def __init__(self, takeover: Takeover, answer: Headers, extensions: Sequence[Extension], mark: int) -> None:
        self.takeover = takeover
        self.channels: tuple[bytes, ...] = ()
        self.dialect = BARE
        self.place: tuple[str, str | None] | None = None
        self.news: Callable[[], Iterable[bytes]] = tuple
        self.recovery: Recovery | None = None
        self.runner: Runner | None = None
        self.options = conf.PLAIN
        self._joining: Joining | None = None
        self._answer = answer
        self._extensions = extensions
        self._mark = mark

    def answer_with(self, subprotocol: str) -> None:
        """Name the subprotocol in the 101."""
        self._answer = [each for each in self._answer if each[0] != "Sec-WebSocket-Protocol"]
        self._answer.append(("Sec-WebSocket-Protocol", subprotocol))

    def join(self, channels: Iterable[bytes], visitor: Visitor, handler: Listener | Runner) -> Joining:
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
        if self._joining is not None:
            engine().hub.cancel(self._joining)
        channels, self.channels = self.channels, ()
        engine().broker.unsubscribe(channels)
        if self.runner is not None:
            self.runner.failed()

    def open(self, start_response: Callable[..., Any]) -> Transport | None:
        """Send the 101 and hand the connection to the hub.

        Returns:
            its transport, or None if it could not be opened after the 101.

        Raises:
            transport.Gone: if the client has hung up meanwhile.
        """
        joining = self._joining
        if joining is None:
            raise RuntimeError("open() comes after join()")
        try:
            bounds = _bounds(self.options.latest_only)
            taken = self.takeover.accept(start_response, self._answer)
        except BaseException:
            self.cancel()
            raise
        connection = Connection(taken, self._handler, bounds, self._extensions, self.dialect)
        try:
            if self.recovery is not None:
                # It becomes a member of its channels when it has caught up with them.
                engine().hub.cancel(joining)
                joining = engine().hub.join((), joining.visitor)
            engine().hub.complete(joining, connection, self.news)
            if self.place is not None and connection.open:
                connection.place = self.place
                engine().presence.entered(*self.place)
            if self.runner is not None:
                self.runner.opened(connection)
            if self.recovery is not None:
                spawn(self.recovery.go_on, connection)  # which gives the channels back in the end
        except Exception:
            # The 101 is out, so there is no response to tell it with.
            logger.exception("a WebSocket could not be opened")
            engine().hub.cancel(joining)
            connection.abort()
            if self.recovery is not None:
                self.cancel()
            return None
        if engine().access.mark() != self._mark:
            engine().access.recheck(connection)  # the visitor may be another one since
        return taken


def _bounds(latest_only: bool) -> Bounds:
    rate, burst = conf.option("RATE_LIMIT") or (None, 0)
    sizes = conf.option("MAX_MESSAGE_SIZE"), conf.option("MAX_QUEUED_BYTES")
    return _shared(Bounds(*sizes, rate, burst, conf.compress_from(), latest_only))


@functools.lru_cache(maxsize=4)
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
        raise try_again(HTTPStatus.SERVICE_UNAVAILABLE, "The WebSocket could not be set up in time.") from None


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
        raise try_again(HTTPStatus.SERVICE_UNAVAILABLE, "This server has as many WebSockets as it can hold.")
    if setting == "MAX_CONNECTIONS_PER_ADDRESS" and visitor is not None:
        logger.warning("refused: %s has too many WebSockets; if it is a proxy, see TRUSTED_PROXIES", visitor.address)
    raise try_again(
        HTTPStatus.TOO_MANY_REQUESTS, "You have too many WebSockets open. Close some of them, perhaps in other windows."
    )


class WebsocketServer(WebsocketWSGIServer):  # type: ignore[misc]
    """ws4redis's WebSocket server with another loop: the application for URLs under ``WEBSOCKET_URL``.

    Args:
        redis_connection: a Redis client for ws4redis's base class; wsloop's own one by default.
        urlpatterns: which paths are served by consumers, made with ``path()`` and ``re_path()`` and
            ``as_websocket()``; all others are facilities.

    Attributes:
        subprotocols: names that a client may be answered with as ``Sec-WebSocket-Protocol``, the preferred one first.
            "wsloop.v1" is documented in ``docs/reference/wsloop-v1.rst``. "ws4redis" is the bare messages that are
            spoken anyway: browsers that offer a token as a subprotocol need another one to be answered with.

    Raises:
        ImproperlyConfigured: if a setting is wrong, or uWSGI's process is not patched by gevent.
    """

    subprotocols: tuple[str, ...] = tuple(DIALECTS)

    def __init__(self, redis_connection: Any = None, urlpatterns: Iterable[Any] = ()) -> None:
        if transport.inside_uwsgi() and not monkey.is_module_patched("socket"):
            raise ImproperlyConfigured(
                "wsgi.py must begin with `from gevent import monkey; monkey.patch_all()`, before any other import"
            )
        checks.validate()
        redis_options.adapt_ws4redis()
        super().__init__(redis_connection or pool.client())
        self.Subscriber = subscriptions.subscriber_class(conf.subscriber_path())
        self._policy = conf.callback("WS4REDIS_ALLOWED_CHANNELS")
        self._authenticate = conf.callback("WS4REDIS_PROCESS_REQUEST") or self.process_request
        self._routes = routing.Routes(urlpatterns)

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
            return self._refuse(exc, environ, start_response)
        finally:
            close_databases()
        return opening.takeover.finish(taken) if taken else []

    def _prepare(self, environ: dict[str, Any]) -> Opening:
        """Do all that comes before the 101, cheap checks first."""
        request = WSGIRequest(environ)
        facility = subscriptions.facility(request)
        handshake.check_sizes(environ, facility)
        options = conf.facility(facility)
        compression = conf.option("COMPRESS_FROM") is not None and options.compression
        match = self._routes.match(request.path_info)
        spoken = (BARE.name,) if match else self.subprotocols
        answer, extensions = handshake.negotiate(environ, spoken, compression)
        takeover = transport.claim(environ)
        _make_room()
        handshake.check_origin(request)
        mark = engine().access.mark()  # before the database is asked
        self._authenticate(request)
        visitor = identity.visitor(request, handshake.client_address(environ))
        _make_room(visitor)
        opening = Opening(takeover, answer, extensions, mark)
        if options.presence:
            user = getattr(request, "user", None)
            opening.place = facility, user.get_username() if user and user.is_authenticated else None
        if match:
            self._ask(opening, match, request, visitor)
        else:
            opening.options = options
            opening.dialect = DIALECTS.get(dict(answer).get("Sec-WebSocket-Protocol", ""), BARE)
            self._subscribe(opening, request, visitor)
        return opening

    def _ask(self, opening: Opening, match: routing.Match, request: WSGIRequest, visitor: Visitor) -> None:
        """Have a consumer decide about its socket."""
        broker = engine().broker
        broker.listen()  # may need no Redis, but must end with its session
        with contextlib.suppress(Unavailable):  # else what is sent to its channel would be lost
            broker.ready()
        opening.dialect = SILENT
        presence = presence_channel(subscriptions.facility(request)).encode() if opening.place else None
        scope = routing.scope(request, match)
        close_databases()  # not kept while the consumer decides, which has its own
        runner = opening.runner = Runner(engine().consumers, match.make(), scope, presence, visitor)
        try:
            opening.join((), visitor, runner)
            subprotocol = runner.connect()
        except BaseException:
            opening.cancel()
            raise
        if subprotocol is not None:
            opening.answer_with(subprotocol)

    def process_subscriptions(self, request: HttpRequest) -> tuple[list[str], bool]:
        """Return the channels that the query asks for, and whether it asks for the echo; see ``subscriptions``."""
        possible = [*self.possible_channels]
        if conf.facility(subscriptions.facility(request)).presence:
            possible.append(subscriptions.PRESENCE)
        return subscriptions.requested(request, possible)

    def _subscribe(self, opening: Opening, request: WSGIRequest, visitor: Visitor) -> None:
        """Subscribe and read what is kept. When this returns all that is published will reach the socket."""
        asked, echo = self.process_subscriptions(request)
        if self._policy is not None:
            asked = subscriptions.allowed(self._policy(request, asked))
        subscriptions.check_facility(request, asked)
        subscriber = self.Subscriber(subscriptions.Client())
        subscriber.set_pubsub_channels(request, asked)
        facility, options, dialect = subscriptions.facility(request), opening.options, opening.dialect
        handler = self._handler(subscriber, echo, options, dialect)
        broker = engine().broker
        broker.subscribe(subscriber._subscription.channels, options)
        opening.channels = tuple(subscriber._subscription.channels)
        try:
            watches = subscriptions.PRESENCE in asked and dialect.tells
            if watches:
                channel = presence_channel(facility).encode()
                broker.subscribe([channel])
                opening.channels += (channel,)
            # Not earlier: what comes before the acknowledgement may be from before a gap, and older than what is kept.
            joining = opening.join(opening.channels, visitor, handler)
            recovery = Recovery(engine().hub, broker, dialect, opening.channels, options)
            recorder = subscriptions.Recorder()
            text = request.GET.get(resume_tokens.PARAMETER) if dialect.tells else None
            if recovery.start(text, groups="subscribe-group" in asked):
                subscriber.send_persisted_messages(recorder)
                broker.sync()
            kept = joining.kept(recorder.sent, len(joining.messages))
            present = who(facility)._asdict() if watches else None
            if joining.too_much and not recovery.unfinished:
                metrics.reached("MAX_QUEUED_BYTES")
                raise Unavailable("more is published than a new connection can hold")
            if joining.lost:
                raise Unavailable("messages are lost at this moment")
            opening.news = lambda: recovery.news(joining, kept, present)
            if recovery.unfinished:
                opening.recovery = recovery
        except BaseException:
            opening.cancel()
            raise

    def _handler(
        self, subscriber: subscriptions.Subscriber, echo: bool, options: conf.Facility, dialect: Dialect
    ) -> Listener:
        speaker: Speaker
        hub = engine().hub
        echo = echo and not dialect.tells  # it tells one's own messages from others
        if type(subscriber).publish_message is not subscriptions.Subscriber.publish_message:
            speaker = CustomSpeaker(hub, engine().broker, subscriber, echo, options)
        elif subscriber._publishers:
            channels = subscriptions.as_bytes(subscriber._publishers)
            speaker = Speaker(hub, engine().broker, channels, echo, options)
        else:
            return listener(dialect)
        return Correspondent(hub, speaker) if dialect.tells else speaker

    def _refuse(self, error: Exception, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refused = refusal(error)
        body = f"{refused.reason}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        headers += [("Cache-Control", "no-store"), *refused.headers]
        start_response(f"{refused.status.value} {refused.status.phrase}", headers)
        # Servers send what they get: behind the answer to a HEAD it would be read as the next answer (RFC 9110, 9.3.2).
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


def refusal(error: Exception) -> Refused:
    """Return how the client is told of an error while its socket was set up. What it tells is no secret."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, PermissionDenied):
        return Refused(HTTPStatus.FORBIDDEN, "This site does not allow you to open this WebSocket. Sign in, perhaps.")
    if isinstance(error, DisallowedHost):  # of the site's own code
        handshake.refusals.log(logging.WARNING, "Host", "%s", handshake.shown(str(error)))
        return Refused(HTTPStatus.BAD_REQUEST, "The Host of the request is not one of the site's; see ALLOWED_HOSTS.")
    if isinstance(error, SuspiciousOperation):
        handshake.refusals.log(logging.WARNING, type(error).__name__, "%s", handshake.shown(str(error)))
        return Refused(HTTPStatus.BAD_REQUEST, "The request is not acceptable; perhaps it has too many parameters.")
    if isinstance(error, transport.Unsupported):
        handshake.refusals.log(logging.ERROR, "server", "%s", error)
        return Refused(HTTPStatus.NOT_IMPLEMENTED, str(error))
    if isinstance(error, (Unavailable, RedisError)):
        handshake.refusals.log(logging.WARNING, "Redis", "%s", error)
        return try_again(HTTPStatus.SERVICE_UNAVAILABLE, "Messages cannot be delivered at the moment.")
    logger.error("a WebSocket could not be set up", exc_info=error)
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The WebSocket could not be set up; the site's log says why.")

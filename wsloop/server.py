"""The WSGI callable that ``wsgi.py`` gives the URLs under ``WEBSOCKET_URL``.

It runs the stages of setting a socket up, in the request's greenlet where blocking is allowed, and turns what goes
wrong into an HTTP response. Only when Redis has acknowledged the subscriptions does the 101 go out: open means
subscribed. Then the connection belongs to the hub and the request ends. This module must not know sockets.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import gevent
from django.core.exceptions import DisallowedHost, ImproperlyConfigured, PermissionDenied, SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from gevent import monkey
from redis.exceptions import RedisError
from ws4redis.wsgi_server import WebsocketWSGIServer

from wsloop import checks, conf, handshake, identity, metrics, redaction, routing, tokens
from wsloop.backend import pool, redis_options
from wsloop.db import close_databases
from wsloop.delivery.broker import Unavailable
from wsloop.engine import engine, listener
from wsloop.facilities import subscriptions
from wsloop.facilities.inbound import CustomPublishHandler, EnvelopeHandler, PublishHandler, ReadOnlyHandler
from wsloop.facilities.recovery import Recovery
from wsloop.opening import Opening, make_room
from wsloop.presence import presence_channel, who
from wsloop.protocol import resume_tokens
from wsloop.protocol.dialects import BARE, CONSUMER, DIALECTS, Dialect
from wsloop.refusals import Refused, try_again
from wsloop.runtime.runner import Runner
from wsloop.sockets import transport
from wsloop.sockets.admission import Visitor
from wsloop.sockets.connection import Connection
from wsloop.sockets.transport import Headers

logger = logging.getLogger("wsloop.server")


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
        make_room()
        handshake.check_origin(request)
        generation = engine().session_watch.generation()  # before the database is asked
        self._authenticate(request)
        visitor = identity.visitor(request, handshake.client_address(environ))
        make_room(visitor)
        opening = Opening(takeover, answer, extensions, generation)
        if options.presence:
            user = getattr(request, "user", None)
            opening.presence_scope = facility, user.get_username() if user and user.is_authenticated else None
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
        opening.dialect = CONSUMER
        presence = presence_channel(subscriptions.facility(request)).encode() if opening.presence_scope else None
        scope = routing.scope(request, match)
        close_databases()  # not kept while the consumer decides, which has its own
        runner = opening.runner = Runner(engine().consumer_runtime, match.make(), scope, presence, visitor)
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
        subscriber = self.Subscriber(subscriptions.RecordingClient())
        subscriber.set_pubsub_channels(request, asked)
        facility, options, dialect = subscriptions.facility(request), opening.options, opening.dialect
        handler = self._handler(subscriber, echo, options, dialect)
        broker = engine().broker
        broker.subscribe(subscriber._subscription.channels, options)
        opening.channels = tuple(subscriber._subscription.channels)
        try:
            watches = subscriptions.PRESENCE in asked and dialect.has_envelopes
            if watches:
                channel = presence_channel(facility).encode()
                broker.subscribe([channel])
                opening.channels += (channel,)
            # Not earlier: what comes before the acknowledgement may be from before a gap, and older than what is kept.
            joining = opening.join(opening.channels, visitor, handler)
            recovery = Recovery(engine().hub, broker, dialect, opening.channels, options)
            recorder = subscriptions.RetainedRecorder()
            text = request.GET.get(resume_tokens.PARAMETER) if dialect.has_envelopes else None
            if recovery.start(text, groups="subscribe-group" in asked):
                subscriber.send_persisted_messages(recorder)
                broker.sync()
            kept = joining.retained(recorder.sent, len(joining.messages))
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
    ) -> ReadOnlyHandler:
        publisher: PublishHandler
        hub = engine().hub
        echo = echo and not dialect.has_envelopes  # it tells one's own messages from others
        if type(subscriber).publish_message is not subscriptions.Subscriber.publish_message:
            publisher = CustomPublishHandler(hub, engine().broker, subscriber, echo, options)
        elif subscriber._publishers:
            channels = subscriptions.as_bytes(subscriber._publishers)
            publisher = PublishHandler(hub, engine().broker, channels, echo, options)
        else:
            return listener(dialect)
        return EnvelopeHandler(hub, publisher) if dialect.has_envelopes else publisher

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

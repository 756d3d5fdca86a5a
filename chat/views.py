"""The pages. Each publishes with ``RedisPublisher`` and shows the messages of a socket of its facility and audience.

A page works in two ways. With scripts it posts the form with ``fetch``, gets JSON, and receives messages over its
socket. Without scripts the browser posts the form and is redirected, as with any Django form, and the page shows the
last message that Redis retains.
"""

import json
import logging
import time
from http import HTTPStatus
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login
from django.contrib.auth.mixins import AccessMixin
from django.contrib.auth.views import RedirectURLMixin
from django.http import Http404, JsonResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import SimpleLazyObject
from django.views import View
from django.views.generic import FormView, TemplateView
from redis.exceptions import RedisError

from chat import demo
from chat.forms import Audience, MessageForm, SendForm, TrackedForm
from wsloop.publisher import SELF, RedisPublisher

logger = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds, sent to a client whose message was not published


def wants_json(request):
    """Return whether the reply goes to a script (``Accept: application/json``, or jQuery's header), not to a window."""
    preferred = request.get_preferred_type(["text/html", "application/json"])
    return preferred == "application/json" or request.headers.get("X-Requested-With") == "XMLHttpRequest"


def ensure_session(request):
    """Give a visitor a session, so that messages can be addressed to this browser."""
    if not request.session.session_key:
        request.session.create()


def last_message(request, facility, audience):
    """Return the last message that Redis retains for the user of the request, as text; None if there is none."""
    try:
        message = RedisPublisher(facility=facility).fetch_message(request, facility, audience)
    except RedisError as error:
        logger.warning("could not read the last message of %s: %s", facility, error)
        return None
    return message.decode(errors="replace") if message else None


def live(request, facility, audiences, read):
    """Return the context of the template ``chat/live.html``, which shows messages as they arrive.

    Args:
        audiences: names of the audiences that the page's socket subscribes to.
        read: converts the text of a message to a note: a dictionary with ``text``, perhaps ``sender`` and ``sent``.
    """

    before = {audience: last_message(request, facility, audience) for audience in audiences}

    def notes():
        kept = {audience: last_message(request, facility, audience) for audience in audiences}
        found = [
            {"audience": audience, "message": text, "fresh": text != before[audience], **read(text)}
            for audience, text in kept.items()
            if text
        ]
        return sorted(found, key=lambda note: note["sent"].timestamp() if note.get("sent") else 0, reverse=True)

    # The template evaluates the notes after the token, so that no message is missed in between. A message that was
    # published after the view began may arrive over the socket as well: such notes are marked fresh for the script.
    return {"facility": facility, "audiences": audiences, "notes": SimpleLazyObject(notes)}


def favicon(request):
    """Redirect to the icon: browsers request this URL for pages that name no icon, such as Django's admin."""
    return redirect(static("img/favicon.svg"))


class SignInAsVisitor(RedirectURLMixin, View):
    """Signs in as the demonstration account of visitors, with one click: the form of the page has the CSRF token.

    It checks the account's well-known password as the sign-in page does, so it opens nothing that was closed.
    """

    http_method_names = ["post"]
    next_page = "home"

    def post(self, request):
        if not settings.DEMO:
            raise Http404("there are no demonstration accounts")
        account = demo.VISITOR
        user = authenticate(request, username=account.username, password=account.password)
        if user is None:
            messages.error(
                request,
                f"There is no account {account.username} with the password of the demonstration. "
                "“manage.py demo_data” creates the account if it is missing.",
            )
            return redirect("login")
        login(request, user)
        return redirect(self.get_success_url())


class PublishView(AccessMixin, FormView):
    """A page with a form that publishes a message, and with a socket that receives it.

    Attributes:
        facility: the facility of the page's socket and its publisher.
        audience: the audience that the page's socket subscribes to; None if the page has no socket.
        open_to_all: the HTTP methods that need no sign-in.
    """

    form_class = MessageForm
    facility = "news"
    audience = None
    open_to_all = ()

    def dispatch(self, request, *args, **kwargs):
        if not request.user.is_authenticated and request.method not in self.open_to_all:
            return self.handle_no_permission()
        return super().dispatch(request, *args, **kwargs)

    def handle_no_permission(self):
        if wants_json(self.request):
            return self.refuse({"__all__": ["Sign in, then send it again."]}, HTTPStatus.FORBIDDEN)
        return super().handle_no_permission()

    def get_context_data(self, **kwargs):
        context = {"facility": self.facility}
        if self.audience:
            context = live(self.request, self.facility, [self.audience.value], lambda text: {"text": text})
        return super().get_context_data(**context, **kwargs)

    def addressees(self, form):
        """Return the audiences of the message, as arguments of ``RedisPublisher``."""
        raise NotImplementedError

    def content(self, form):
        """Return the message to publish."""
        return form.cleaned_data["message"]

    def publish(self, form):
        publisher = RedisPublisher(facility=self.facility, request=self.request, **self.addressees(form))
        publisher.publish_message(self.content(form))

    def details(self):
        """Return what a script is told of a published message besides ``ok``."""
        return {}

    def get_success_url(self):
        return self.request.path

    def form_valid(self, form):
        try:
            self.publish(form)
        except RedisError as error:
            logger.warning("could not publish a message to %s: %s", self.facility, error)
            form.add_error(None, "Your message could not be delivered. Try again in a few seconds.")
            return self.undelivered(form)
        if wants_json(self.request):
            return JsonResponse({"ok": True} | self.details())
        messages.success(self.request, "Sent.")
        return redirect(self.get_success_url())

    def form_invalid(self, form):
        if wants_json(self.request):
            return self.refuse(form.errors, HTTPStatus.BAD_REQUEST)
        return super().form_invalid(form)

    def undelivered(self, form):
        """Return the reply for a message that Redis did not take; a plain form still contains the text."""
        if wants_json(self.request):
            response = self.refuse(form.errors, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            response = self.render_to_response(self.get_context_data(form=form), status=HTTPStatus.SERVICE_UNAVAILABLE)
        response["Retry-After"] = RETRY_AFTER
        return response

    def refuse(self, errors, status):
        """Return errors as JSON: a list of sentences for each field; ``__all__`` has those that concern no field."""
        return JsonResponse({"ok": False, "errors": errors}, status=status)


class Home(PublishView):
    """The start page: it sends messages to itself, measures their way and shows it.

    The view measures its own part, because only the clock of one machine can be trusted: how long it worked until the
    message was ready, and how long Redis took to accept it. The page measures the whole way with the browser's clock.
    """

    template_name = "chat/home.html"
    form_class = TrackedForm
    facility = "home"
    open_to_all = ("GET", "HEAD")

    def setup(self, request, *args, **kwargs):
        self.began = time.perf_counter()
        super().setup(request, *args, **kwargs)

    def addressees(self, form):
        return {"users": [SELF]}

    def content(self, form):
        return {"id": form.cleaned_data["id"]}

    def publish(self, form):
        self.ready = time.perf_counter()
        super().publish(form)
        self.accepted = time.perf_counter()

    def details(self):
        view, redis = self.ready - self.began, self.accepted - self.ready
        return {"milliseconds": {"view": round(view * 1000, 3), "redis": round(redis * 1000, 3)}}


class Form(PublishView):
    """A message to oneself."""

    template_name = "chat/form.html"
    facility = "form"
    audience = Audience.USER

    def addressees(self, form):
        return {"users": [SELF]}


class Broadcast(PublishView):
    """To all subscribers. Everybody may subscribe, but only signed-in users may publish to everybody."""

    template_name = "chat/broadcast.html"
    audience = Audience.BROADCAST
    open_to_all = ("GET", "HEAD")

    def addressees(self, form):
        return {"broadcast": True}


class User(PublishView):
    """To every window in which this user is signed in."""

    template_name = "chat/user.html"
    audience = Audience.USER

    def addressees(self, form):
        return {"users": [SELF]}


class Group(PublishView):
    """To all members of the groups that this user is in."""

    template_name = "chat/group.html"
    audience = Audience.GROUP

    def groups(self):
        return [group.name for group in self.request.user.groups.all()]

    def get_context_data(self, **kwargs):
        return super().get_context_data(groups=self.groups(), **kwargs)

    def form_valid(self, form):
        if not self.groups():
            form.add_error(None, "You are in no group, so nobody would receive this.")
            return self.form_invalid(form)
        return super().form_valid(form)

    def addressees(self, form):
        return {"groups": [SELF]}


class Session(PublishView):
    """To every tab of this browser, signed in or not."""

    template_name = "chat/session.html"
    audience = Audience.SESSION
    open_to_all = ("GET", "HEAD", "POST")

    def dispatch(self, request, *args, **kwargs):
        ensure_session(request)
        return super().dispatch(request, *args, **kwargs)

    def addressees(self, form):
        return {"sessions": [SELF]}


INBOX = "inbox"  # the facility of the two pages below; its messages are JSON, because they contain the sender


class Send(PublishView):
    """To the audience chosen in the form. The page of :class:`Inbox` shows the messages, in another window."""

    template_name = "chat/send.html"
    form_class = SendForm
    facility = INBOX

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"sender": self.request.user}

    def get_initial(self):
        wanted = {name: self.request.GET[name] for name in ("audience", "recipient") if name in self.request.GET}
        return super().get_initial() | wanted

    def addressees(self, form):
        audience, recipient = form.cleaned_data["audience"], form.cleaned_data["recipient"]
        return {
            Audience.BROADCAST: {"broadcast": True},
            Audience.USER: {"users": [recipient]},
            Audience.GROUP: {"groups": [recipient]},
            Audience.SESSION: {"sessions": [SELF]},
        }[audience]

    def content(self, form):
        sender = self.request.user.get_username()
        return {"sender": sender, "text": form.cleaned_data["message"], "sent": timezone.now()}

    def get_success_url(self):
        """Return to the same recipient, for the next message."""
        chosen = {name: self.request.POST[name] for name in ("audience", "recipient") if self.request.POST.get(name)}
        return f"{self.request.path}?{urlencode(chosen)}"


class Inbox(TemplateView):
    """The messages that arrive, labelled by audience."""

    template_name = "chat/inbox.html"

    def get(self, request, *args, **kwargs):
        ensure_session(request)
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        mine = Audience if self.request.user.is_authenticated else (Audience.BROADCAST, Audience.SESSION)
        context = live(self.request, INBOX, [audience.value for audience in mine], read_note)
        return super().get_context_data(**context, **kwargs)


class Echo(TemplateView):
    """The page whose consumer returns each message."""

    template_name = "chat/echo.html"


class Random(TemplateView):
    """The page of a consumer that sends a number every second."""

    template_name = "chat/random.html"


def read_note(text):
    """Return a message of :class:`Send` as a dictionary, and any other message as ``text``."""
    try:
        note = json.loads(text)
        sent = parse_datetime(note["sent"])
        if sent and timezone.is_aware(sent):
            sent = timezone.localtime(sent)  # here, not in the template: the calendar may have no such date
        return {"text": note["text"], "sender": note["sender"], "sent": sent}
    except (ValueError, TypeError, KeyError, OverflowError):
        return {"text": text}

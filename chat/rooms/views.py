"""The pages of the chat rooms: the list, a room, and the answer to invalid names.

A room works without scripts: the browser posts its form, and older messages are on pages of their own. With scripts
the page talks to :class:`chat.rooms.consumer.RoomConsumer`, reads older messages as JSON, and sends the form with
``fetch`` while there is no socket.
"""

from http import HTTPStatus

from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.functional import cached_property
from django.utils.timezone import localdate
from django.views.generic import FormView, ListView

from chat.rooms import conversation
from chat.rooms.forms import MAX_SLUG_LENGTH, NAMING, OpenRoomForm, RoomMessageForm, to_slug
from chat.views import wants_json

CONTINUED = 300  # seconds within which messages of one author share one name; as in static/js/rooms/arrange.js


class Rooms(ListView):
    """All rooms, those with the newest messages first, and a form to open one by its name."""

    template_name = "chat/rooms.html"
    paginate_by = 50
    context_object_name = "rooms"

    def get(self, request, *args, **kwargs):
        self.form = OpenRoomForm(request.GET if "name" in request.GET else None)
        if self.form.is_valid():
            return redirect("room", self.form.cleaned_data["name"])
        return super().get(request, *args, **kwargs)

    def get_queryset(self):
        return conversation.listed(self.request.user)

    def get_context_data(self, **kwargs):
        context = super().get_context_data(form=self.form, **kwargs)
        return context | {"rooms": conversation.with_last_messages(context["rooms"])}


class Room(FormView):
    """One room: everybody may read, and signed-in users may write."""

    template_name = "chat/room.html"
    form_class = RoomMessageForm

    def dispatch(self, request, *args, **kwargs):
        self.slug = kwargs["room"].lower()
        if len(self.slug) > MAX_SLUG_LENGTH:
            return no_such_room(request, self.slug)
        if self.slug != kwargs["room"] and request.method in ("GET", "HEAD"):
            query = request.META["QUERY_STRING"]
            address = reverse("room", args=[self.slug])
            return redirect(f"{address}?{query}" if query else address, permanent=True)
        if request.method not in ("GET", "HEAD", "OPTIONS") and not request.user.is_authenticated:
            return self.refuse("You are signed out. Sign in, then send it again.")
        response = super().dispatch(request, *args, **kwargs)
        patch_vary_headers(response, ["Accept"])  # otherwise the browser's cache could show JSON in a window
        return response

    def get(self, request, *args, **kwargs):
        if wants_json(request):
            return self.as_json()
        response = super().get(request, *args, **kwargs)
        messages, _ = self.page
        if self.after is not None and not messages:
            return redirect("room", self.slug)  # later messages will appear there
        if self.marked > (self.read or 0):
            conversation.mark_read(self.slug, request.user, self.marked)
        return response

    @cached_property
    def before(self):
        """The number before which messages are shown."""
        return conversation.to_number(self.request.GET.get("before"))

    @cached_property
    def after(self):
        """The number after which messages are shown; if ``before`` is None, too: the newest ones."""
        return conversation.to_number(self.request.GET.get("after"))

    @cached_property
    def page(self):
        if self.after is None:
            return conversation.before(self.slug, self.before)
        return conversation.after(self.slug, self.after), self.after > 0

    @cached_property
    def read(self):
        """The number up to which the user has read; None for a visitor who has not signed in."""
        user = self.request.user
        return conversation.read_mark(self.slug, user) if user.is_authenticated else None

    @cached_property
    def missed(self):
        """Whether there are unread messages before those that are shown.

        False for a user who has never been here: earlier messages do not count as unread.
        """
        if not self.read:
            return False
        if self.after is not None:
            return self.read < self.after
        messages, earlier = self.page
        return earlier and self.read + 1 < messages[0].number

    @cached_property
    def marked(self):
        """The number up to which the user has read when this page is shown.

        The messages shown count as read, because without scripts nothing else can report it. This does not hold if
        there are unread messages before them, which would then count as read as well.
        """
        messages, _ = self.page
        if self.read is None or self.before is not None or self.missed or not messages:
            return self.read or 0
        return max(self.read, messages[-1].number)

    def as_json(self):
        """Reply with the messages before or after a number, for a page that has no socket at the moment."""
        messages, earlier = self.page
        return JsonResponse({"messages": [conversation.as_data(message) for message in messages], "earlier": earlier})

    def get_context_data(self, **kwargs):
        messages, earlier = self.page
        newest = self.before is None and self.after is None
        last = messages[-1].number if messages else 0
        return super().get_context_data(
            slug=self.slug,
            rows=rows(messages, self.request.user, self.read if self.before is None else None),
            earlier=messages[0].number if earlier and messages else None,
            last=last,
            newest=newest,
            read=self.read,
            unread=max(0, last - self.read) if newest and self.read else 0,
            missed=self.missed,
            marked=self.marked,
            present=present(self.slug),
            **kwargs,
        )

    def form_valid(self, form):
        text, key = form.cleaned_data["message"], form.cleaned_data["key"]
        message = conversation.write(self.slug, self.request.user, text, key)
        if not wants_json(self.request):
            return redirect("room", self.slug)
        return JsonResponse({"ok": True, "number": message.number})

    def form_invalid(self, form, status=HTTPStatus.BAD_REQUEST):
        if wants_json(self.request):
            return JsonResponse({"ok": False, "errors": form.errors}, status=status)
        return self.render_to_response(self.get_context_data(form=form), status=status)

    def refuse(self, reason):
        """Return the reply for a message that is refused, whatever its text; a plain form still contains the text."""
        form = self.get_form()
        form.is_valid()
        form.add_error(None, reason)
        return self.form_invalid(form, HTTPStatus.FORBIDDEN)


def rows(messages, user, read):
    """Return the messages for the template, with the marks for shared names and dividers.

    Args:
        read: the number up to which ``user`` has read; None: no message is shown as new.
    """
    found, previous, new_shown = [], None, False
    for message in messages:
        own = user.is_authenticated and message.author_id == user.pk
        new = not new_shown and read is not None and message.number > read
        new_shown = new_shown or new
        same_day = previous is not None and localdate(previous.sent_at) == localdate(message.sent_at)
        continued = (
            same_day
            and not new
            and previous.author_id == message.author_id
            and (message.sent_at - previous.sent_at).total_seconds() < CONTINUED
        )
        data = conversation.as_data(message)
        data |= {"sent_at": message.sent_at, **face(data["author"])}
        found.append(data | {"own": own, "new": new, "continued": continued, "new_day": not same_day})
        previous = message
    return found


def present(slug):
    """Return the users who have the room open, for the template; None if Redis does not answer."""
    who = conversation.who(slug)
    return who and {"users": [{"name": name, **face(name)} for name in who.users], "guests": who.anonymous}


def face(name):
    """Return the replacement for a picture: a letter, and one of four colours. As in static/js/rooms/words.js."""
    return {"initial": name[:1].upper(), "tone": sum(map(ord, name)) % 4}


def no_such_room(request, name):
    """Reply to the URL of a room with an invalid name: say which names are valid, and offer the most similar one."""
    context = {"name": name, "suggestion": to_slug(name), "naming": NAMING}
    return render(request, "chat/no_room.html", context, status=HTTPStatus.NOT_FOUND)

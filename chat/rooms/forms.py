"""The forms of the chat rooms: they check messages and the names of rooms."""

import uuid

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify

from chat.forms import MAX_MESSAGE_LENGTH, MessageField
from chat.models import Room

MAX_SLUG_LENGTH = Room._meta.get_field("slug").max_length
NAMING = f"up to {MAX_SLUG_LENGTH} letters from a to z, digits, hyphens and underscores"  # of a valid name


class RoomMessageField(MessageField):
    def widget_attrs(self, widget):
        # Without maxlength: a browser would silently cut off a long pasted text.
        attrs = super().widget_attrs(widget)
        del attrs["maxlength"]
        return attrs | {"rows": 1, "placeholder": "Write a message", "data-most": MAX_MESSAGE_LENGTH}


class RoomMessageForm(forms.Form):
    """A message for a room, over a form or a socket.

    ``key`` identifies the message on the page. A message that is sent again with the same key is stored once.
    """

    message = RoomMessageField(
        error_messages={
            "required": "Write something first.",
            "max_length": "A message may have %(limit_value)d characters; this one has %(show_value)d.",
        },
    )
    key = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.initial.setdefault("key", uuid.uuid4())

    def clean_message(self):
        message = self.cleaned_data["message"]
        try:
            message.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain and UTF-8 cannot
            raise ValidationError("The message contains characters that do not exist.") from None
        return message


class OpenRoomForm(forms.Form):
    """Opens a room by its name; a room that does not exist yet is created with its first message."""

    name = forms.CharField(
        max_length=100,
        help_text=f"A name has {NAMING}. Capitals become lower case, and spaces hyphens.",
        error_messages={"required": "Enter the name of the room."},
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "none", "placeholder": "for example tea-kitchen"}
        ),
    )

    def clean_name(self):
        slug = to_slug(self.cleaned_data["name"])
        if not slug:
            raise ValidationError("The name needs at least one letter from a to z, or a digit.")
        return slug


def to_slug(name):
    """Return the valid name of a room that is most like ``name``; empty if there is none."""
    return slugify(name)[:MAX_SLUG_LENGTH].strip("-_")

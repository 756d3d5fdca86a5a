"""The forms of the sample: they check the texts and the recipients of messages."""

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import models

from chat.models import Task
from wsloop import conf

MAX_MESSAGE_LENGTH = 2000  # characters: long enough for any notification, far below the limits of wsloop in bytes


class MessageField(forms.CharField):
    """A text of one or more lines, without white space around it."""

    def __init__(self, **kwargs):
        widget = forms.Textarea(attrs={"rows": 3, "autocomplete": "off"})
        super().__init__(max_length=MAX_MESSAGE_LENGTH, widget=widget, **kwargs)

    def to_python(self, value):
        # A form sends each line break as two characters, but the browser's own counter counts one.
        return super().to_python(value).replace("\r\n", "\n")


class MessageForm(forms.Form):
    message = MessageField()

    def clean_message(self):
        message = self.cleaned_data["message"]
        if message == conf.option("HEARTBEAT"):
            raise ValidationError("This text is the heartbeat of the sockets, so no page would show it.")
        return message


class TrackedForm(forms.Form):
    """A message that its page recognises when it arrives; without scripts nobody does, and it has no ``id``."""

    id = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)  # as long as a UUID


class TaskForm(forms.Form):
    """A new task. The list of all of them is on one page, so it may not become too long."""

    MOST_TASKS = 100

    message = forms.CharField(
        label="New task",
        max_length=Task._meta.get_field("text").max_length,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def clean(self):
        if Task.objects.count() >= self.MOST_TASKS:
            raise ValidationError(f"The list has {self.MOST_TASKS} tasks. Remove some of them first.")
        return super().clean()


class Audience(models.TextChoices):
    """The possible audiences of a message."""

    BROADCAST = "broadcast", "Everybody"
    USER = "user", "One user"
    GROUP = "group", "One group"
    SESSION = "session", "This browser only"


class SendForm(forms.Form):
    """Audience, recipient and text.

    Args:
        sender: the user who writes. A signed-in user may write to everybody, to any user and to the groups which the
            user belongs to; staff may write to any group.
    """

    audience = forms.ChoiceField(choices=Audience.choices, initial=Audience.USER, widget=forms.RadioSelect)
    recipient = forms.CharField(
        required=False,
        max_length=150,
        help_text="Name of the user or group.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "list": "recipients"}),
    )
    message = MessageField()

    def __init__(self, *args, sender, **kwargs):
        super().__init__(*args, **kwargs)
        self._sender = sender

    def clean(self):
        """Check that the recipient exists, and replace the name by the spelling in the database."""
        cleaned = super().clean()
        audience, name = cleaned.get("audience"), cleaned.get("recipient")
        if audience not in (Audience.USER, Audience.GROUP) or name is None:
            return cleaned
        if not name:
            self.add_error("recipient", f"Name the {audience} to send it to.")
            return cleaned
        try:
            cleaned["recipient"] = self._user(name) if audience == Audience.USER else self._group(name)
        except ValidationError as error:
            self.add_error("recipient", error)
        return cleaned

    def _user(self, name):
        user = get_user_model()._default_manager.filter(username=name, is_active=True).first()
        if user is None:
            raise ValidationError(f"There is no user named “{name}”.")
        return user.get_username()

    def _group(self, name):
        group = self.groups().filter(name=name).first()
        if group is None:
            raise ValidationError(f"There is no group named “{name}” that you may write to.")
        return group.name

    def groups(self):
        """Return the groups that the sender may write to."""
        return Group.objects.all() if self._sender.is_staff else self._sender.groups.all()

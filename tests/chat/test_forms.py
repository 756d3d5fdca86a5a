"""Which texts may be published, and to whom."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from chat.forms import MAX_MESSAGE_LENGTH, MessageForm, SendForm


def message_errors(message):
    return MessageForm({"message": message}).errors.get("message", [])


def test_a_message_is_needed_and_white_space_is_none():
    assert message_errors("") == ["This field is required."]
    assert message_errors(" \r\n\t ") == ["This field is required."]


def test_white_space_around_it_is_taken_off_and_lines_are_kept():
    form = MessageForm({"message": "  first\r\n  second \r\n"})
    assert form.is_valid()
    assert form.cleaned_data["message"] == "first\n  second"


def test_its_length_is_counted_as_the_browser_counts():
    assert message_errors("x" * MAX_MESSAGE_LENGTH) == []
    assert message_errors("x\r\n" * (MAX_MESSAGE_LENGTH // 2 - 1) + "xx") == []
    assert "at most 2000 characters (it has 2001)" in message_errors("x" * (MAX_MESSAGE_LENGTH + 1))[0]


def test_the_heartbeat_is_refused_because_no_page_would_show_it():
    assert "heartbeat" in message_errors("--heartbeat--")[0]


def send(username, **data):
    return SendForm({"message": "hello", **data}, sender=get_user_model().objects.get(username=username))


@pytest.mark.parametrize("audience", ["broadcast", "session"])
def test_everybody_and_this_browser_need_no_recipient(database, audience):
    assert send("john", audience=audience).is_valid()
    assert send("john", audience=audience, recipient="whoever was written there before").is_valid()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"audience": "user"}, "Name the user to send it to."),
        ({"audience": "group", "recipient": " "}, "Name the group to send it to."),
        ({"audience": "user", "recipient": "nobody"}, "There is no user named “nobody”."),
        ({"audience": "user", "recipient": "chatters"}, "There is no user named “chatters”."),
        ({"audience": "group", "recipient": "john"}, "There is no group named “john” that you may write to."),
        ({"audience": "user", "recipient": "x" * 151}, "Ensure this value has at most 150 characters (it has 151)."),
    ],
)
def test_a_recipient_must_exist(database, data, error):
    assert send("john", **data).errors["recipient"] == [error]


def test_an_account_that_was_closed_is_no_recipient(database):
    get_user_model().objects.filter(username="mary").update(is_active=False)
    assert send("john", audience="user", recipient="mary").errors["recipient"] == ["There is no user named “mary”."]


def test_an_audience_must_be_one_of_the_four(database):
    assert "audience" in send("john", audience="everyone").errors
    assert "audience" in send("john").errors


def test_users_write_to_their_own_groups_and_staff_to_any(database):
    Group.objects.create(name="board")
    assert send("john", audience="group", recipient="chatters").is_valid()
    assert "recipient" in send("john", audience="group", recipient="board").errors
    assert send("admin", audience="group", recipient="board").is_valid()
    assert list(send("john").groups().values_list("name", flat=True)) == ["chatters"]

"""The chat rooms without sockets: what is stored, and what the pages and the admin show."""

import inspect
import re
import uuid
from datetime import date, datetime, timedelta, timezone
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client, TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import localdate, localtime

from chat.models import Message, Room
from chat.rooms import conversation
from chat.rooms.consumer import RoomConsumer
from chat.rooms.forms import NAMING, RoomMessageForm, to_slug
from chat.rooms.views import face
from tests.chat.test_views import JSON, text

# When the newest of the messages was said that tests date themselves. It is a fixed moment, not one of today: messages
# that write() dates come after it whatever the hour, and no time zone has its midnight in the minutes behind it.
NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def without_redis(no_redis):
    """Nothing here needs Redis, and everything holds while it is down."""


@pytest.fixture
def kitchen(john, mary):
    """A room with 120 messages, a minute apart, of john and mary by turns."""
    room = Room.objects.create(slug="kitchen", last_number=120)
    Message.objects.bulk_create(
        Message(
            room=room,
            number=number,
            author=(mary, john)[number % 2],
            text=f"message {number}",
            sent_at=NOON + timedelta(minutes=number - 120),
        )
        for number in range(1, 121)
    )
    return room


def numbers(response):
    """The numbers of the messages that a page shows."""
    return [int(number) for number in re.findall(r'data-number="(\d+)"', text(response))]


def write(author, sent_at, said="hello"):
    """Write to the room ``tea`` as if it had been at another time."""
    message = conversation.write("tea", author, said)
    Message.objects.filter(pk=message.pk).update(sent_at=sent_at)


def days(response):
    """The days that begin on a page, by the number of their first message."""
    found = re.findall(r'data-day><time datetime="([^"]+)".*?data-number="(\d+)"', text(response), re.DOTALL)
    return {int(number): date.fromisoformat(day) for day, number in found}


def announced(work):
    """Do ``work`` and return what it announces after its commit."""
    with TestCase.captureOnCommitCallbacks() as callbacks:
        work()
    return callbacks


# --- writing ----------------------------------------------------------------------------------------------------------


def test_messages_are_numbered_in_each_room(john, mary):
    assert [conversation.write(slug, john, "hello").number for slug in ("tea", "tea", "beer", "tea")] == [1, 2, 1, 3]
    assert Room.objects.get(slug="tea").last_number == 3


def test_a_message_that_was_deleted_leaves_its_number_unused(john):
    conversation.write("tea", john, "one")
    Message.objects.all().delete()
    assert conversation.write("tea", john, "two").number == 2


def test_a_message_that_is_sent_twice_is_stored_and_announced_once(john, mary):
    key = uuid.uuid4()
    first = []
    assert len(announced(lambda: first.append(conversation.write("tea", john, "hello", key)))) == 1
    assert announced(lambda: first.append(conversation.write("tea", john, "hello", key))) == []
    assert first[0] == first[1]
    assert conversation.write("tea", mary, "of somebody else", key).number == 2
    assert conversation.write("beer", john, "elsewhere", key).number == 1
    assert Room.objects.get(slug="tea").last_number == 2


def test_another_saidis_another_message_whatever_its_key(john):
    """A browser that goes back shows the form as it was sent, with its key."""
    key = uuid.uuid4()
    assert [conversation.write("tea", john, text, key).number for text in ("one", "two", "one")] == [1, 2, 1]
    assert [message.text for message in Message.objects.filter(room__slug="tea")] == ["one", "two"]


def test_who_writes_has_read(john, mary):
    conversation.write("tea", mary, "one")
    conversation.write("tea", john, "two")
    assert (conversation.read_mark("tea", john), conversation.read_mark("tea", mary)) == (2, 1)


def test_a_saidis_checked_for_what_json_can_carry_and_a_database_cannot():
    for broken in ("\ud83d", "nul \0", " \n", "x" * 2001):
        assert list(RoomMessageForm({"message": broken}).errors) == ["message"]
    assert RoomMessageForm({"message": "x" * 2000}).is_valid()
    assert RoomMessageForm({"message": "\r\n".join("x" * 1000)}).is_valid()  # 1,999 characters


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_page_shows_the_newest_messages_and_leads_to_those_before(client, kitchen):
    assert numbers(newest := client.get("/rooms/kitchen/")) == list(range(71, 121))
    assert 'href="?before=71"' in text(newest)
    assert numbers(earlier := client.get("/rooms/kitchen/?before=71")) == list(range(21, 71))
    assert 'href="?before=21"' in text(earlier)
    assert numbers(first := client.get("/rooms/kitchen/?before=21")) == list(range(1, 21))
    assert re.search(r"data-earlier-box hidden>", text(first))
    assert "data-room=" in text(newest)
    assert "data-room=" not in text(earlier)  # an older page is not live


@pytest.mark.parametrize("before", ["", "abc", "-1", "1e3", "9" * 40, "٣"])
def test_a_number_that_is_none_shows_the_newest_page(client, kitchen, before):
    assert numbers(client.get("/rooms/kitchen/", {"before": before}))[-1] == 120


def test_scripts_read_earlier_and_later_messages_as_json(client, kitchen):
    earlier = client.get("/rooms/kitchen/?before=21", headers=JSON)
    assert [message["number"] for message in earlier.json()["messages"]] == list(range(1, 21))
    assert earlier.json()["earlier"] is False
    assert "Accept" in earlier["Vary"]
    later = client.get("/rooms/kitchen/?after=118", headers=JSON).json()
    assert later["messages"][0] == {
        "number": 119,
        "author": "john",
        "text": "message 119",
        "sent_at": (NOON - timedelta(minutes=1)).isoformat(),
        "key": None,
    }
    assert len(later["messages"]) == 2
    assert len(client.get("/rooms/kitchen/?after=0", headers=JSON).json()["messages"]) == conversation.PAGE


def test_a_room_in_which_nothing_was_said(client, sign_in):
    assert "There are no messages yet." in text(client.get("/rooms/empty/"))
    assert "Write the first message." in text(sign_in("john").get("/rooms/empty/"))
    assert not Room.objects.filter(slug="empty").exists()


def test_names_texts_and_times_are_shown_and_what_others_write_is_no_html(client, john):
    john.username = '<i>"john'
    john.save()
    message = conversation.write("tea", john, "<script>alert(1)</script>")
    html = text(client.get("/rooms/tea/"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert '<span class="sender">&lt;i&gt;&quot;john</span>' in html
    assert f'<time datetime="{localtime(message.sent_at).isoformat()}">' in html
    assert "<script>" not in html
    assert "<i>" not in html


def test_ones_own_messages_are_marked(sign_in, kitchen):
    html = text(sign_in("john").get("/rooms/kitchen/"))
    assert re.findall(r'class="said( own)?[^"]*" data-number="(\d+)"', html)[-2:] == [(" own", "119"), ("", "120")]


def test_messages_of_one_author_within_five_minutes_stand_together(client, john, mary):
    for author, minutes in ((john, 0), (john, 4), (john, 10), (mary, 11), (john, 12)):
        write(author, NOON + timedelta(minutes=minutes))
    shown = re.findall(r'class="said( continued)?"', text(client.get("/rooms/tea/")))
    assert shown == ["", " continued", "", "", ""]


def test_each_day_begins_with_its_date(client, john):
    for later in (0, 0, 1):
        write(john, NOON + timedelta(days=later))
    assert days(client.get("/rooms/tea/")) == {1: localdate(NOON), 3: localdate(NOON) + timedelta(days=1)}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
def test_a_day_begins_at_the_midnight_of_the_time_zone_in_which_times_are_shown(client, john, zone):
    """Not at that of UTC, in which the database gives times: something is said a minute before and after each."""
    midnight = datetime(2026, 1, 15, tzinfo=ZoneInfo(zone))
    midnights = sorted({midnight, datetime(2026, 1, 15, tzinfo=timezone.utc)})
    moments = [each + timedelta(minutes=minutes) for each in midnights for minutes in (-1, 1)]
    for moment in moments:
        write(john, moment)
    with override_settings(TIME_ZONE=zone):
        response = client.get("/rooms/tea/")
    first = [moment > midnight for moment in moments].index(True)
    assert days(response) == {1: date(2026, 1, 14), first + 1: date(2026, 1, 15)}


@pytest.mark.parametrize(
    ("name", "initial", "tone"), [("john", "J", 3), ("mary", "M", 1), ("émile", "É", 0), ("🙂", "🙂", 2), ("", "", 0)]
)
def test_a_face_is_the_same_as_in_the_scripts(name, initial, tone):
    """``tests/js/rooms.test.js`` has the same list."""
    assert face(name) == {"initial": initial, "tone": tone}


def test_the_words_of_an_account_that_was_deleted_stay(client, john):
    conversation.write("tea", john, "still here")
    get_user_model().objects.filter(pk=john.pk).delete()
    assert "(deleted account)" in text(client.get("/rooms/tea/"))
    assert "still here" in text(client.get("/rooms/"))


def test_a_page_asks_the_database_the_same_number_of_questions_for_one_message_and_for_fifty(sign_in, kitchen, mary):
    browser = sign_in("john")
    conversation.write("tea", mary, "hello")
    counts = []
    for path in ("/rooms/tea/", "/rooms/kitchen/"):
        with CaptureQueriesContext(connection) as queries:
            browser.get(path)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 10


# --- unread -----------------------------------------------------------------------------------------------------------


def test_new_messages_are_marked_where_they_begin(sign_in, john, mary):
    browser = sign_in("john")
    write(mary, NOON, "seen")  # all at one time: no day may end in between
    browser.get("/rooms/tea/")
    assert "data-new" not in text(browser.get("/rooms/tea/"))
    write(mary, NOON, "new 1")
    write(mary, NOON, "new 2")
    html = text(browser.get("/rooms/tea/"))
    assert html.count("data-new>") == 1
    assert html.index("seen") < html.index("data-new>") < html.index("new 1")
    assert '<li class="said" data-number="2"' in html  # with its name, although mary has written before
    assert '<li class="said continued" data-number="3"' in html
    assert "data-new>" not in text(browser.get("/rooms/tea/"))  # they have been shown


def test_an_older_page_marks_nothing_as_read(sign_in, kitchen, john):
    browser = sign_in("john")
    browser.get("/rooms/kitchen/?before=21")
    assert conversation.read_mark("kitchen", john) == 0
    browser.get("/rooms/kitchen/")
    assert conversation.read_mark("kitchen", john) == 120


def test_what_was_not_shown_is_not_read(sign_in, kitchen, john):
    browser = sign_in("john")
    conversation.mark_read("kitchen", john, 3)
    html = text(browser.get("/rooms/kitchen/"))
    assert re.search(r'data-to-new><a class="[^"]+" href="\?after=3">117 new messages', html)
    assert 'data-read="3" data-marked="3"' in html
    assert conversation.read_mark("kitchen", john) == 3
    browser.get("/rooms/kitchen/?after=4")  # leaves one out
    assert conversation.read_mark("kitchen", john) == 3
    shown, path = [], "?after=3"
    while path:  # as one goes on without scripts
        response = browser.get(f"/rooms/kitchen/{path}", follow=True)
        shown += [number for number in numbers(response) if number not in shown]
        assert conversation.read_mark("kitchen", john) == shown[-1]
        later = re.search(r'href="([^"]+)">Later messages', text(response))
        path = later and later[1]
    assert response.redirect_chain == [("/rooms/kitchen/", 302)]
    assert "Mark as read" not in text(response)
    assert sorted(shown) == [*range(4, 121)]


def test_who_opens_a_room_for_the_first_time_has_missed_nothing(sign_in, kitchen, john):
    assert "Mark as read" not in text(sign_in("john").get("/rooms/kitchen/"))
    assert conversation.read_mark("kitchen", john) == 120


def test_new_messages_that_fit_on_the_page_are_read_and_it_tells_how_many_they_are(sign_in, kitchen, john):
    conversation.mark_read("kitchen", john, 70)
    html = text(sign_in("john").get("/rooms/kitchen/"))
    assert "data-to-new hidden" in html
    assert "50 new messages" in html
    assert conversation.read_mark("kitchen", john) == 120


def test_a_mark_never_goes_back_nor_beyond_what_was_written(kitchen, john):
    for number, mark in ((0, 0), (50, 50), (20, 50), (10**12, 120), (-5, 120)):
        conversation.mark_read("kitchen", john, number)
        assert conversation.read_mark("kitchen", john) == mark
    conversation.mark_read("nowhere", john, 5)
    assert not Room.objects.filter(slug="nowhere").exists()


def test_the_list_tells_the_last_message_and_how_many_are_unread(client, sign_in, kitchen, mary):
    browser = sign_in("john")
    Room.objects.exclude(pk=kitchen.pk).delete()
    conversation.write("tea", mary, "of mary <3")
    response = browser.get("/rooms/")
    found = [(room.slug, room.unread, room.last_message.text) for room in response.context["rooms"]]
    assert found == [("tea", 1, "of mary <3"), ("kitchen", 120, "message 120")]
    assert "mary: of mary &lt;3" in text(response)
    assert '<span class="count">99+<span class="visually-hidden"> unread</span>' in text(response)
    browser.get("/rooms/tea/")
    browser.get("/rooms/kitchen/")
    assert "unread" not in text(browser.get("/rooms/")).partition("<main")[2]
    assert "unread" not in text(client.get("/rooms/")).partition("<main")[2]


def test_messages_that_were_deleted_are_not_unread_for_ever_and_an_emptied_room_is_not_listed(sign_in, mary):
    browser = sign_in("john")
    for said in ("one", "two", "three"):
        conversation.write("tea", mary, said)
    Message.objects.filter(text="three").delete()

    def listed():
        return {room.slug: (room.unread, room.last_message.text) for room in browser.get("/rooms/").context["rooms"]}

    assert listed()["tea"] == (2, "two")
    browser.get("/rooms/tea/")
    assert listed()["tea"] == (0, "two")
    Message.objects.filter(room__slug="tea").delete()
    assert "tea" not in listed()
    assert conversation.write("tea", mary, "four").number == 4
    assert listed()["tea"] == (2, "four")


def test_the_list_is_cut_into_pages_and_costs_the_same_for_every_number_of_rooms(sign_in, mary):
    browser = sign_in("john")
    counts = []
    for count in (1, 60):
        for number in range(Room.objects.count(), count):
            conversation.write(f"room-{number}", mary, "hello")
        with CaptureQueriesContext(connection) as queries:
            response = browser.get("/rooms/")
        counts.append(len(queries))
    assert counts[1] - counts[0] <= 0
    assert counts[1] <= 8
    assert len(response.context["rooms"]) == 50
    assert "?page=2" in text(response)
    assert len(browser.get("/rooms/?page=2").context["rooms"]) == 10 + Room.objects.count() - 60


def test_the_list_shows_the_code_that_runs(client):
    shown = unescape(text(client.get("/rooms/")))
    for method in (RoomConsumer.room_message, RoomConsumer.catch_up):
        assert inspect.getsource(method).rstrip() in shown
    statement = 'Room.objects.filter(slug=slug).update(last_number=F("last_number") + 1)'
    assert statement in shown
    assert statement in inspect.getsource(conversation)


def test_a_list_without_rooms(client):
    Room.objects.all().delete()
    assert "There are no rooms yet." in text(client.get("/rooms/"))


# --- the form ---------------------------------------------------------------------------------------------------------


def test_a_plain_form_stores_the_message_and_shows_it(sign_in):
    response = sign_in("john").post("/rooms/tea/", {"message": " grüße\r\nund so "}, follow=True)
    assert response.redirect_chain == [("/rooms/tea/", 302)]
    assert '<p class="message-text">grüße\nund so</p>' in text(response)


def test_a_plain_form_that_is_sent_twice_stores_one_message(sign_in):
    browser = sign_in("john")
    key = re.search(r'name="key" value="([^"]+)"', text(browser.get("/rooms/tea/")))[1]
    for _ in range(2):
        assert browser.post("/rooms/tea/", {"message": "once", "key": key}).status_code == 302
    assert [message.text for message in Message.objects.filter(room__slug="tea")] == ["once"]


def test_a_script_gets_json(sign_in):
    key = str(uuid.uuid4())
    reply = sign_in("john").post("/rooms/tea/", {"message": "hello", "key": key}, headers=JSON)
    assert reply.json() == {"ok": True, "number": 1}
    assert str(Message.objects.get(room__slug="tea").key) == key


def test_errors_stand_at_the_field_and_the_saidis_kept(sign_in):
    browser = sign_in("john")
    response = browser.post("/rooms/tea/", {"message": "x" * 2001})
    assert response.status_code == 400
    assert "A message may have 2000 characters; this one has 2001." in text(response)
    assert 'aria-describedby="id_message_error"' in text(response)
    assert "x" * 2001 in text(response)
    refused = browser.post("/rooms/tea/", {"message": " ", "key": "none"}, headers=JSON)
    assert refused.status_code == 400
    assert refused.json()["errors"] == {"message": ["Write something first."], "key": ["Enter a valid UUID."]}
    assert not Message.objects.filter(room__slug="tea").exists()


def test_strangers_read_but_do_not_write_and_what_they_wrote_is_kept(client):
    page = text(client.get("/rooms/lobby/"))
    assert "<textarea" not in page
    assert 'href="/accounts/login/?next=/rooms/lobby/">Sign in</a> to write' in page
    refused = client.post("/rooms/lobby/", {"message": "typed for an hour"})
    assert refused.status_code == 403
    assert "typed for an hour</textarea>" in text(refused)
    assert "You are signed out. Sign in, then send it again." in text(refused)
    script = client.post("/rooms/lobby/", {"message": "spam"}, headers=JSON)
    assert script.status_code == 403
    assert script.json()["errors"] == {"__all__": ["You are signed out. Sign in, then send it again."]}
    assert not Message.objects.filter(text__in=["spam", "typed for an hour"]).exists()


def test_a_long_saidthat_is_pasted_is_not_cut_off(sign_in):
    assert "maxlength" not in text(sign_in("john").get("/rooms/tea/"))


def test_rooms_are_protected_against_other_sites(database):
    browser = Client(enforce_csrf_checks=True)
    assert browser.login(username="john", password="secret")
    assert browser.post("/rooms/tea/", {"message": "forged"}).status_code == 403


def test_a_page_says_so_when_redis_does_not_answer(sign_in):
    browser = sign_in("john")
    assert "Live updates are not available at the moment." in text(browser.get("/rooms/tea/"))
    with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
        assert browser.post("/rooms/tea/", {"message": "stored"}).status_code == 302
    assert len(callbacks) == 1
    assert "stored" in text(browser.get("/rooms/tea/"))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("/rooms/caf%C3%A9 au lait/", "cafe-au-lait"),
        ("/rooms/a/b/", "ab"),
        ("/rooms/%F0%9F%8D%B5/", None),
        ("/rooms/" + "x" * 51 + "/", "x" * 50),
    ],
)
def test_a_name_that_no_room_can_have(client, path, suggestion):
    response = client.get(path)
    assert response.status_code == 404
    assert "The name of a room has up to 50 letters from a to z, digits, hyphens and underscores" in text(response)
    assert ("To the room" in text(response)) == bool(suggestion)
    if suggestion:
        assert f'href="/rooms/{suggestion}/"' in text(response)
        assert client.get(f"/rooms/{suggestion}/").status_code == 200
    assert client.post(path, {"message": "x"}).status_code == 404


def test_a_name_that_no_room_can_have_is_shown_as_text(client):
    html = text(client.get("/rooms/<img src=x>/"))
    assert "&lt;img src=x&gt;" in html
    assert "<img src=x>" not in html


def test_capitals_make_no_other_room(client, sign_in, john):
    moved = client.get("/rooms/Lobby/?before=7")
    assert (moved.status_code, moved["Location"]) == (301, "/rooms/lobby/?before=7")
    assert client.get("/rooms/LOBBY/")["Location"] == "/rooms/lobby/"
    assert sign_in("john").post("/rooms/Tea/", {"message": "hello"})["Location"] == "/rooms/tea/"
    assert [message.text for message in Message.objects.filter(room__slug="tea")] == ["hello"]


def test_the_form_and_the_page_of_a_name_that_is_none_say_the_same_of_names(client):
    for path in ("/rooms/", "/rooms/no room/"):
        assert f"name has {NAMING}" in text(client.get(path)).replace("name of a room", "name"), path
    for character in "az09-_":
        assert f"a{character}a" == to_slug(f"a{character}a")


def test_an_address_without_its_last_slash(client):
    assert client.get("/rooms/lobby")["Location"] == "/rooms/lobby/"


def test_a_room_is_opened_by_its_name(client):
    assert client.get("/rooms/", {"name": " Tea Kitchen! "})["Location"] == "/rooms/tea-kitchen/"
    for name, error in (
        ("", "Enter the name of the room."),
        ("🍵", "The name needs at least one letter from a to z, or a digit."),
    ):
        response = client.get("/rooms/", {"name": name})
        assert response.status_code == 200
        assert error in text(response)


@pytest.mark.parametrize("name", ["Tea Kitchen", "x" * 80, "a" * 49 + " b", "--x--"])
def test_a_suggestion_is_a_name_that_a_room_can_have(name):
    Room(slug=to_slug(name)).clean_fields(exclude=["last_number"])


# --- admin ------------------------------------------------------------------------------------------------------------


def test_the_admin_finds_messages(sign_in, kitchen):
    admin = sign_in("admin")
    found = admin.get("/admin/chat/message/", {"q": "message 77"})
    assert found.context["cl"].result_count == 1
    pk = Message.objects.get(number=77).pk
    for path in ("room/", "readmark/", f"room/{kitchen.pk}/change/", f"message/{pk}/change/"):
        assert admin.get(f"/admin/chat/{path}").status_code == 200, path
    for path in ("message/add/", "room/add/", "readmark/add/", f"room/{kitchen.pk}/delete/"):
        assert admin.get(f"/admin/chat/{path}").status_code == 403, path
    assert 'name="_save"' not in text(admin.get(f"/admin/chat/message/{pk}/change/"))
    assert 'href="/rooms/kitchen/"' in text(admin.get(f"/admin/chat/room/{kitchen.pk}/change/"))
    with CaptureQueriesContext(connection) as queries:
        admin.get("/admin/chat/message/")
    assert len(queries) <= 15
    assert admin.post(f"/admin/chat/message/{pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Message.objects.filter(pk=pk).exists()


def test_the_migrations_are_complete(database):
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)

"""The chat rooms from outside: many who write at once, over sockets and as forms, on two workers."""

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from websocket import WebSocketBadStatusException


@pytest.fixture
def room():
    """The name of a room that only this test uses."""
    return f"room-{uuid.uuid4().hex[:12]}"


def post(site, cookies, room, text, key=""):
    """Write as a page without scripts does."""
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-CSRFToken": re.search("csrftoken=([^;]+)", cookies)[1],
    }
    answer = site.request("POST", f"/rooms/{room}/", headers, urlencode({"message": text, "key": key}), cookies)
    assert answer.status == 302, answer.text


def messages(client, count):
    """The next messages of the room that a socket is sent."""
    found = []
    while len(found) < count:
        frame = json.loads(client.next(20))
        found += frame["messages"] if frame["type"] == "messages" else []
    return found


def in_each_worker(site, room):
    """A socket of a guest in each worker, both from the beginning of the room."""
    for worker in site.workers():
        with site.only(worker):
            yield site.connect(f"rooms/{room}/?after=0")


def test_all_see_all_messages_once_and_in_one_order_whoever_writes_wherever(site, john, mary, room):
    readers = list(in_each_worker(site, room))
    writers = [site.connect(f"rooms/{room}/", cookies=cookies) for cookies in (john, mary, john, mary)]

    def over_socket(number):
        for count in range(15):
            writers[number].send(json.dumps({"type": "message", "text": f"socket {number} {count}"}))

    def as_form(number):
        for count in range(15):
            post(site, (john, mary)[number], room, f"form {number} {count}")

    with ThreadPoolExecutor(6) as executor:
        jobs = [executor.submit(over_socket, number) for number in range(4)]
        jobs += [executor.submit(as_form, number) for number in range(2)]
        for job in jobs:
            job.result()
    seen = messages(readers[0], 90)
    assert messages(readers[1], 90) == seen
    assert [message["number"] for message in seen] == list(range(1, 91))
    for name in [*(f"socket {number}" for number in range(4)), *(f"form {number}" for number in range(2))]:
        said = [message["text"] for message in seen if message["text"].startswith(name)]
        assert said == [f"{name} {count}" for count in range(15)]
    later = site.connect(f"rooms/{room}/?after=40")
    assert messages(later, 50) == seen[40:]


def test_who_opens_a_room_together_and_sends_twice(site, john, mary, room):
    keys = {john: str(uuid.uuid4()), mary: str(uuid.uuid4())}
    with ThreadPoolExecutor(8) as executor:
        jobs = [executor.submit(post, site, each, room, "hello", keys[each]) for each in (john, mary) * 4]
        for job in jobs:
            job.result()
    reader = site.connect(f"rooms/{room}/?after=0")
    assert {(message["number"], message["author"]) for message in messages(reader, 2)} in (
        {(1, "john"), (2, "mary")},
        {(1, "mary"), (2, "john")},
    )
    reader.send(json.dumps({"type": "ping"}))
    assert {json.loads(frame)["type"] for frame in reader.until(json.dumps({"type": "pong"}))} <= {"who", "presence"}


def test_a_name_that_is_too_long_is_rejected(site):
    site.connect(f"rooms/{'x' * 50}/")
    with pytest.raises(WebSocketBadStatusException, match="403"):
        site.connect(f"rooms/{'x' * 51}/")

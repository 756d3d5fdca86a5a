"""Messages of a channel one after another, without gap, or the loss told: a real history, and arrivals made by hand."""

import random
import types

import gevent
import pytest
from gevent.event import Event
from redis.exceptions import ConnectionError as NoConnection

from testbed.processes import wait_until
from tests.unit.peer import WAIT, events, turn
from wsloop import conf
from wsloop.backend import history, keys, pool, publishing
from wsloop.backend.publishing import OutgoingMessage
from wsloop.delivery import channel_state
from wsloop.delivery import gapless as module
from wsloop.delivery.gapless import GaplessDelivery
from wsloop.protocol.messages import Message

A, B = b"unit:broadcast:a", b"unit:user:john:a"
OPTIONS = conf.Facility(size=1000, ttl=60)


class Reads:
    """``history.read`` and ``history.tops``, which can be held up before and behind Redis, and can fail."""

    def __init__(self):
        self.questions, self.answers = [], 0
        self.errors = []
        self.before, self.behind = Event(), Event()
        self.before.set()
        self.behind.set()
        self._held = {}

    def hold(self, number, before=False):
        """Hold this question up, the first is 1, until the event that is returned is set."""
        self._held[number, before] = Event()
        return self._held[number, before]

    def holding(self, function):
        """Return the same function, with all that."""

        def ask(client, questions):
            self.questions.append(list(questions))
            number = len(self.questions)
            self._held.get((number, True), self.before).wait(WAIT)
            if self.errors:
                raise self.errors.pop(0)
            answer = function(client, questions)
            self.answers += 1
            self._held.get((number, False), self.behind).wait(WAIT)
            return answer

        return ask


@pytest.fixture
def redis(own_redis):
    with own_redis.client() as client:
        yield client


@pytest.fixture
def reads(redis, monkeypatch):
    reads = Reads()
    for function in (history.read, history.tops):
        monkeypatch.setattr(history, function.__name__, reads.holding(function))
    return reads


@pytest.fixture
def line(reads, monkeypatch):
    """Channels under test; ``line.told`` is what is delivered and lost, in order."""
    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr(random, "uniform", lambda a, b: (a + b) / 2)
    line = Lines(reads)
    yield line
    for channel in list(line.gapless._channels):
        line.gapless.forget(channel)
    if line.gapless._checking is not None:
        line.gapless._checking.kill()


class Lines:
    def __init__(self, reads):
        self.told = []
        self.origins = []
        self.reads = reads
        self.gapless = GaplessDelivery(events(message=self._deliver, lost=self._lost))

    def _deliver(self, channel, message, origin):
        self.told.append((channel, message.payload.decode()))
        self.origins.append(origin)

    def _lost(self, channel, position):
        self.told.append((channel, "lost", position))

    def texts(self, channel=A):
        return [each[1] for each in self.told if each[0] == channel]

    def watch(self, *channels):
        for channel in channels:
            assert self.gapless.watch(channel)
            self.gapless.subscribed(channel)
        assert self.gapless.wait(channels, WAIT)

    def publish(self, *texts, channel=A, options=OPTIONS):
        """Publish, and return what would arrive."""
        publishing.publish(pool.client(), [OutgoingMessage([channel], text.encode(), 0, options) for text in texts])
        return [entry.message for entry in history.latest(pool.client(), channel, len(texts))]

    def arrive(self, *messages, channel=A):
        for message in messages:
            self.gapless.arrived(channel, message, f"origin of {message.payload.decode()}")

    def settle(self):
        """Wait until nothing is missing any more."""
        lines = self.gapless._channels.values()
        wait_until(lambda: all(line.waiting is None for line in lines), what="the end of catching up")


def top(channel=A):
    (top,) = history.tops(pool.client(), [channel])
    return top


# Where a line begins.


def test_a_line_begins_where_the_history_stands_when_it_is_subscribed(line):
    line.publish("old")
    line.watch(A)
    assert line.gapless.position(A) == top()
    line.arrive(*line.publish("new"))
    assert line.told == [(A, "new")]
    assert line.origins == ["origin of new"]


def test_the_position_is_unknown_before_redis_has_answered(line, reads):
    reads.before.clear()
    assert line.gapless.watch(A)
    assert not line.gapless.watch(A), "it is there already"
    line.gapless.subscribed(A)
    assert line.gapless.position(A) is None
    assert not line.gapless.wait([A], 0.01)
    first, second = line.publish("first", "second")
    line.arrive(first)
    reads.before.set()
    assert line.gapless.wait([A], WAIT)
    assert line.gapless.position(A) == second.position
    line.arrive(second, *line.publish("third"))
    assert line.texts() == ["third"], "what came before is from before the subscription stood"


def test_what_arrives_behind_the_top_that_was_read_is_delivered(line, reads):
    reads.behind.clear()
    line.publish("old")
    assert line.gapless.watch(A)
    line.gapless.subscribed(A)
    wait_until(lambda: reads.questions, what="the question")
    turn()
    line.arrive(*line.publish("new", "newer"))
    reads.behind.set()
    assert line.gapless.wait([A], WAIT)
    line.settle()
    assert line.texts() == ["new", "newer"]


def test_a_channel_that_never_had_a_message_begins_with_an_id_of_its_own(line):
    line.watch(A)
    assert line.gapless.position(A).offset == 0
    line.arrive(*line.publish("first"))
    assert line.told == [(A, "first")]


def test_lines_of_facilities_with_other_options(line):
    assert line.gapless.watch(A)
    assert line.gapless.watch(B)
    line.gapless.subscribed(A)
    line.gapless.subscribed(B)
    assert line.gapless.wait([A, B, b"no line"], WAIT)
    line.arrive(*line.publish("to all"))
    line.arrive(*line.publish("to john", channel=B), channel=B)
    assert line.told == [(A, "to all"), (B, "to john")]


def test_channels_without_a_history_pass(line):
    line.arrive(Message(b"bare"), channel=b"other")
    line.watch(A)
    line.arrive(Message(b"published by another program"))
    assert line.told == [(b"other", "bare"), (A, "published by another program")]
    assert line.gapless.position(b"other") is None


# What is missing.


@pytest.mark.parametrize("missing", [1, 5])
def test_a_gap_is_filled_in_order_before_what_showed_it(line, missing):
    line.watch(A)
    messages = line.publish(*[str(number) for number in range(missing + 3)])
    line.arrive(messages[0], *messages[missing + 1 :])
    assert line.texts() == ["0"], "what comes behind a gap waits"
    line.settle()
    assert line.texts() == [str(number) for number in range(missing + 3)]
    line.arrive(*line.publish("next"))
    assert line.texts()[-1] == "next"
    assert len(line.reads.questions) == 2, "the line stands again"


def test_what_was_missed_while_the_subscription_was_away_comes_when_it_stands_again(line):
    line.watch(A, B)
    line.arrive(*line.publish("before"))
    line.publish("missed")
    line.publish("missed too", channel=B)
    line.gapless.subscribed(A)
    line.gapless.subscribed(B)
    line.settle()
    assert line.texts(A) == ["before", "missed"]
    assert line.texts(B) == ["missed too"]
    assert [len(question) for question in line.reads.questions] == [2, 2], "both in one question"


def test_what_arrives_late_and_was_read_already_is_dropped(line):
    line.watch(A)
    one, two, three = line.publish("1", "2", "3")
    line.arrive(three)
    line.settle()
    assert line.texts() == ["1", "2", "3"]
    line.arrive(one, two, three, one)
    four, five = line.publish("4", "5")
    line.arrive(four, two, five, five)
    line.settle()
    assert line.texts() == ["1", "2", "3", "4", "5"]


def begin_to_catch_up(line, reads, *texts):
    """Publish messages of which only the last arrives, and hold back what is read of the others."""
    line.watch(A)
    messages = line.publish(*texts)
    reads.behind.clear()
    line.arrive(messages[-1])
    wait_until(lambda: len(reads.questions) == 2, what="the question")
    return messages


def test_what_arrives_while_it_is_read_comes_once_and_behind_it(line, reads):
    messages = begin_to_catch_up(line, reads, "1", "2", "3")
    later = line.publish("4", "5")
    line.arrive(*messages, *later)
    assert line.texts() == []
    reads.behind.set()
    line.settle()
    assert line.texts() == ["1", "2", "3", "4", "5"]
    assert line.origins[3:] == ["origin of 4", "origin of 5"]


def test_another_gap_while_the_first_is_filled(line, reads):
    begin_to_catch_up(line, reads, "1", "2")
    turn()
    later = line.publish("3", "4", "5", "6")
    line.arrive(later[0], later[2], later[3])
    reads.behind.set()
    line.settle()
    assert line.texts() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("before", [True, False])
def test_a_subscription_that_comes_back_again_while_it_is_read_doubles_nothing(line, reads, before):
    """What arrives while the question is put once more is in its answer, too."""
    line.watch(A)
    line.publish("1")
    first, second = reads.hold(2), reads.hold(3, before)
    line.gapless.subscribed(A)
    wait_until(lambda: len(reads.questions) == 2, what="the question")
    line.gapless.subscribed(A)
    first.set()
    wait_until(lambda: len(reads.questions) == 3, what="the second question")
    line.arrive(*line.publish("2"))
    second.set()
    wait_until(lambda: not line.gapless._behind._running, what="the end of the questions")
    line.arrive(*line.publish("3"))
    line.settle()
    assert line.texts() == ["1", "2", "3"]


def test_what_was_missed_behind_an_answer_that_comes_late_is_asked_for_again(line, reads):
    """The subscription breaks and stands again between the answer of Redis and its arrival."""
    line.watch(A)
    line.publish("1")
    first = reads.hold(2)
    line.gapless.subscribed(A)
    wait_until(lambda: len(reads.questions) == 2, what="the question")
    wait_until(lambda: reads.answers == 2, what="the answer")
    line.publish("2")
    line.gapless.subscribed(A)
    first.set()
    wait_until(lambda: not line.gapless._behind._running, what="the end of the questions")
    assert line.texts() == ["1", "2"]


def test_a_long_gap_is_read_in_pages(line, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    line.watch(A)
    messages = line.publish(*[str(number) for number in range(95)])
    line.arrive(messages[94])
    line.settle()
    line.arrive(*line.publish("95"), *messages[50:60])
    line.settle()
    assert line.texts() == [str(number) for number in range(96)]


def test_messages_that_go_on_arriving_while_pages_are_read_come_in_order(line, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    line.watch(A)
    line.arrive(line.publish(*[str(number) for number in range(60)])[-1])
    for number in range(60, 120):
        line.arrive(*line.publish(str(number)))
        gevent.sleep(0)
    line.settle()
    assert line.texts() == [str(number) for number in range(120)]


def test_more_than_may_wait_is_read_instead(line, reads, monkeypatch):
    monkeypatch.setattr(channel_state, "WAITING_BYTES", 10)
    begin_to_catch_up(line, reads, "0", "1")
    turn()
    for number in range(2, 40):
        line.arrive(*line.publish(str(number)))
        (watched,) = line.gapless._channels.values()
        assert sum(len(each[-2].payload) for each in watched.waiting) <= 10  # number, message, origin
    reads.behind.set()
    line.settle()
    line.arrive(*line.publish("40"))
    line.settle()
    assert line.texts() == [str(number) for number in range(41)]


def test_many_channels_are_read_in_few_questions(line, reads):
    channels = [b"unit:%d" % number for number in range(2 * module.AT_ONCE + 1)]
    for channel in channels:
        line.gapless.watch(channel)
        line.gapless.subscribed(channel)
    assert line.gapless.wait(channels, WAIT)
    assert sorted(map(len, reads.questions)) == [1, module.AT_ONCE, module.AT_ONCE]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_to_the_subscription_each_message_comes_once_and_in_order(line, reads, monkeypatch, seed):
    """Messages arrive, get lost with the subscription, and come late; answers of Redis take their time."""
    monkeypatch.setattr(history, "PAGE", 7)
    chance = random.Random(seed)
    line.watch(A, B)
    published, under_way, arrived = {A: [], B: []}, [], []
    for number in range(400):
        what = chance.random()
        if what < 0.5:
            channels = chance.choice([(A,), (B,), (A, B)])
            publishing.publish(pool.client(), [OutgoingMessage(channels, b"%d" % number, 0, OPTIONS)])
            for channel in channels:
                published[channel].append(str(number))
                under_way.append((channel, history.latest(pool.client(), channel, 1)[0].message))
        elif what < 0.8:
            for _ in range(min(chance.randrange(1, 6), len(under_way))):
                arrived.append(under_way.pop(0))
                line.arrive(arrived[-1][1], channel=arrived[-1][0])
        elif what < 0.86:
            under_way.clear()
            line.gapless.subscribed(A)
            line.gapless.subscribed(B)
        elif what < 0.9:
            for channel, message in arrived[-chance.randrange(1, 10) :]:
                line.arrive(message, channel=channel)
        elif what < 0.95:
            chance.choice([reads.before.clear, reads.before.set, reads.behind.clear, reads.behind.set])()
        else:
            gevent.sleep(0.001)
    reads.before.set()
    reads.behind.set()
    line.gapless.subscribed(A)
    line.gapless.subscribed(B)
    line.settle()
    assert line.texts(A) == published[A]
    assert line.texts(B) == published[B]


# What is lost.


def test_a_loss_is_told_once_and_what_comes_next_is_complete(line, redis, lost):
    line.watch(A)
    line.arrive(*line.publish("1", "2", "3"))
    redis.flushall()
    (first,) = line.publish("new 1")
    line.arrive(first)
    line.settle()
    assert line.told[3:] == [(A, "lost", first.position)]
    second, third = line.publish("new 2", "new 3")
    line.arrive(second, third)
    assert line.texts()[4:] == ["new 2", "new 3"]
    line.gapless.subscribed(A)
    line.settle()
    assert line.texts()[4:] == ["new 2", "new 3"]
    assert lost("history") == 1


def test_a_rewound_line_with_the_same_numbers_is_a_loss(line, redis):
    line.watch(A)
    line.arrive(*line.publish("1", "2"))
    redis.flushall()
    *_, last = line.publish("other 1", "other 2", "other 3")
    line.arrive(last)
    line.settle()
    assert line.told[2:] == [(A, "lost", last.position)]


def test_a_master_that_had_missed_the_last_messages_is_noticed(line, redis):
    line.watch(A)
    messages = line.publish("1", "2", "3")
    line.arrive(*messages)
    meta, stream = keys.history_keys(A)
    (_, fields), *_ = redis.xrange(stream)
    redis.delete(stream)
    redis.xadd(stream, fields, id="1-0")
    redis.hset(meta, mapping={"offset": 1, "id": messages[0].id})
    (second,) = line.publish("other 2")
    line.arrive(second)
    line.settle()
    assert line.told[3:] == [(A, "lost", second.position)]
    line.arrive(*line.publish("other 3", "other 4"))
    assert line.texts()[4:] == ["other 3", "other 4"]


def test_more_than_the_history_keeps_is_a_loss(line):
    small = OPTIONS._replace(size=3)
    line.watch(A)
    line.arrive(*line.publish("0", options=small))
    messages = line.publish(*[str(number) for number in range(1, 6)], options=small)
    line.arrive(messages[-1])
    line.settle()
    assert line.told[1:] == [(A, "lost", messages[-1].position)]


def test_as_much_as_the_history_keeps_is_none(line):
    small = OPTIONS._replace(size=3)
    line.watch(A)
    line.arrive(*line.publish("0", options=small))
    line.arrive(line.publish("1", "2", "3", options=small)[-1])
    line.settle()
    assert line.texts() == ["0", "1", "2", "3"]


def test_a_loss_at_the_beginning_is_nobodys(line, redis):
    """Who is told of the position of a new line has nothing yet that could be lost."""
    line.publish("old")
    redis.flushall()
    line.watch(A)
    assert line.told == []


def test_pages_in_the_middle_of_which_the_rest_is_trimmed(line, reads, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 10)
    line.watch(A)
    messages = line.publish(*[str(number) for number in range(30)])
    reads.behind.clear()
    line.arrive(messages[-1])
    wait_until(lambda: len(reads.questions) == 2, what="the first page")
    turn()
    pool.client().xtrim(keys.history_keys(A)[1], maxlen=5, approximate=False)
    reads.behind.set()
    line.settle()
    assert line.texts() == [str(number) for number in range(11)] + ["lost"]
    line.arrive(*line.publish("30"))
    assert line.texts()[-1] == "30"


# Redis fails.


@pytest.mark.parametrize("error", [NoConnection("gone"), OSError("gone")])
def test_a_question_that_fails_is_put_again(line, reads, caplog, error):
    line.watch(A)
    messages = line.publish("1", "2")
    reads.errors += [error, error]
    line.arrive(messages[1])
    line.settle()
    assert line.texts() == ["1", "2"]
    assert caplog.text.count("Could not read missing messages, retrying: gone") == 2


@pytest.mark.parametrize("end", [lambda gapless: gapless.forget(A), GaplessDelivery.stop], ids=["forgotten", "stopped"])
def test_a_question_that_fails_for_a_channel_that_nobody_waits_for_any_more(line, reads, monkeypatch, end):
    monkeypatch.setattr(module, "RETRY", 0.3)
    line.watch(A)
    messages = line.publish("1", "2")
    reads.errors.append(OSError("gone"))
    line.arrive(messages[1])
    wait_until(lambda: not reads.errors, what="the error")
    end(line.gapless)
    gevent.sleep(0.5)  # longer than until the question would be put again
    assert len(reads.questions) == 2
    assert line.told == []


def test_a_channel_that_is_forgotten_while_it_is_read(line, reads):
    begin_to_catch_up(line, reads, "1", "2")
    line.gapless.forget(A)
    reads.behind.set()
    wait_until(lambda: not line.gapless._behind._running, what="the end of the questions")
    assert line.told == []
    assert line.gapless.position(A) is None


def test_a_channel_that_is_watched_anew_while_it_is_read_for_those_before(line, reads):
    begin_to_catch_up(line, reads, "1", "2")
    line.gapless.forget(A)
    assert line.gapless.watch(A)
    line.gapless.subscribed(A)
    reads.behind.set()
    assert line.gapless.wait([A], WAIT)
    assert line.told == []
    line.arrive(*line.publish("3"))
    assert line.texts() == ["3"]


# A subscription that hangs.


@pytest.fixture
def checking(monkeypatch):
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(module, "IN_FLIGHT", 0.02)


def test_a_line_on_which_nothing_arrives_is_noticed(checking, line):
    line.watch(A, B)
    line.publish("1", "2")
    wait_until(lambda: line.texts() == ["1", "2"], what="the messages")
    assert line.texts(B) == []


def test_a_message_that_is_under_way_is_waited_for(checking, line, reads, monkeypatch):
    missed, landed = Event(), Event()  # instead of seconds, which a busy machine lets pass

    def sleep(what):
        if what is not landed:
            return gevent.sleep(what)
        missed.set()
        return landed.wait(WAIT)

    monkeypatch.setattr(module, "IN_FLIGHT", landed)
    monkeypatch.setattr(module, "gevent", types.SimpleNamespace(spawn=gevent.spawn, sleep=sleep))
    line.watch(A)
    (message,) = line.publish("1")
    assert missed.wait(WAIT), "no comparison"
    assert line.texts() == []
    line.arrive(message)
    asked = len(reads.questions)
    landed.set()
    wait_until(lambda: len(reads.questions) > asked, what="the next comparison")
    assert {each for question in reads.questions for each in question} == {A}, "only positions were read"
    assert line.origins == ["origin of 1"]


def test_comparing_goes_on_when_redis_does_not_answer_and_ends_with_the_last_line(checking, line, reads):
    line.watch(A)
    reads.errors += [NoConnection("gone")] * 3
    wait_until(lambda: not reads.errors, what="errors")
    line.publish("1")
    wait_until(lambda: line.texts() == ["1"], what="the message")
    line.gapless.forget(A)
    wait_until(lambda: line.gapless._checking is None, what="the end of the greenlet")
    line.watch(B)
    line.publish("2", channel=B)
    wait_until(lambda: line.texts(B) == ["2"], what="the message")

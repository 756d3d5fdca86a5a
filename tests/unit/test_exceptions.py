"""What consumers raise and are told by raising: names of Channels, and what a site's code catches."""

import pickle

import gevent
import pytest

from wsloop import exceptions
from wsloop.exceptions import Disconnected


@pytest.mark.parametrize("name", sorted(set(exceptions.__all__) - {"Disconnected"}))
def test_all_but_one_are_exceptions(name):
    assert issubclass(getattr(exceptions, name), Exception)


def test_disconnected_is_not_swallowed_by_except_exception_and_ends_a_greenlet_in_silence(capfd):
    assert not issubclass(Disconnected, Exception)

    def work():
        try:
            raise Disconnected
        except Exception:
            return "swallowed"

    greenlet = gevent.spawn(work)
    greenlet.join()
    assert greenlet.successful()
    assert isinstance(greenlet.value, Disconnected)
    assert capfd.readouterr().err == ""


def test_the_names_are_those_of_channels():
    channels = {"AcceptConnection", "DenyConnection", "StopConsumer", "ChannelFull", "MessageTooLarge"}
    assert channels | {"InvalidChannelLayerError"} == (set(exceptions.__all__) - {"Disconnected"})


def test_they_can_be_handed_to_another_process():
    for name in exceptions.__all__:
        again = pickle.loads(pickle.dumps(getattr(exceptions, name)("why")))
        assert again.args == ("why",)

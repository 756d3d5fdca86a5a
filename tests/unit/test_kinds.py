"""What values of settings may be, and what is said of others. Which setting is of which kind: test_conf."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from wsloop import kinds


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (kinds.whole(), [1, 10**12]),
        (kinds.whole(0, 5), [0, 5]),
        (kinds.seconds, [0.001, 5, 10**9]),
        (kinds.yes_or_no, [True, False]),
        (kinds.or_none(kinds.yes_or_no), [None, True]),
        (kinds.text, ["", "grün"]),
        (kinds.text_on_sockets(3), ["", "♥"]),
        (kinds.class_path, ["site.Subscriber"]),
        (kinds.anything, [None, 1, "x"]),
        (kinds.path, ["/", "/ws/"]),
        (kinds.function("request"), [len, lambda request: None]),
    ],
)
def test_a_value_of_the_kind_is_returned_as_it_is(kind, values):
    assert [kind("NAME", value) for value in values] == values


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (kinds.whole(), 0, "NAME must be a positive whole number, not 0"),
        (kinds.whole(), 1.0, "NAME must be a positive whole number, not 1.0"),
        (kinds.whole(0, 5), 6, "NAME must be a whole number, 0 or more, and not more than 5, not 6"),
        (kinds.whole(), True, "NAME must be a positive whole number, not True"),
        (kinds.seconds, float("nan"), "NAME must be a positive number of seconds, not nan"),
        (kinds.yes_or_no, 1, "NAME must be True or False, not 1"),
        (kinds.text, None, "NAME must be text (str), not None"),
        (
            kinds.whole(),
            " 12 ",
            "NAME must be a positive whole number, not ' 12 ', which is text: write int(…) or float(…) around what "
            "comes from the environment",
        ),
        (kinds.dictionary({"a": kinds.text}), {"b": 1}, "NAME has no option ['b']; there are ['a']"),
        (kinds.dictionary({"a": kinds.text}), {"a": 1}, "NAME['a'] must be text (str), not 1"),
        (kinds.dictionary({}), [], "NAME must be a dictionary, not list"),
        (kinds.text_on_sockets(2), "♥", "NAME must be text of up to 2 bytes, not '♥'"),
        (
            kinds.class_path,
            "Subscriber",
            "NAME must be the dotted path of a class, such as \"mysite.sockets.Subscriber\", not 'Subscriber'",
        ),
        (kinds.function("request"), 1, "NAME must be a function (request) or the dotted path of one, not 1"),
    ],
)
def test_another_one_is_refused_with_what_it_must_be_and_what_it_is(kind, value, text):
    with pytest.raises(ImproperlyConfigured) as caught:
        kind("NAME", value)
    assert str(caught.value) == text

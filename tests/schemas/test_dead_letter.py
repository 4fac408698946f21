"""Dead letters tell what was wrong, and keep what was there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import NAMES, headers_of, original, read
from schemas.errors import InvalidMessage, InvalidSignalException
from schemas.signal import TacticalSignal
from schemas.wire import decode


def test_headers_name_the_error_and_the_place():
    with pytest.raises(InvalidSignalException) as refused:
        decode(TacticalSignal, b'{"a":1,"a":2}', place="signals[3]@17")
    headers = headers_of(refused.value, "himari.signals.v1", 3, 17)
    assert headers == [
        ("__streams.errors.exception", b"InvalidSignalException"),
        ("__streams.errors.message", b"signals[3]@17: a must be given once, was given twice"),
        ("__streams.errors.topic", b"himari.signals.v1"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"17"),
        ("himari.error.code", b"duplicate_key"),
        ("himari.error.field", b"a"),
    ]
    letter = read(headers)
    assert (letter.exception, letter.partition, letter.offset) == ("InvalidSignalException", 3, 17)
    assert (letter.code, letter.field) == ("duplicate_key", "a")


names = st.text(max_size=9).filter(lambda name: name not in NAMES)


@given(st.lists(st.tuples(names, st.binary(max_size=9))), st.text(max_size=50), st.text(max_size=20))
def test_the_records_own_headers_stand_before_ours_and_come_back(own, text, field):
    error = InvalidMessage("malformed", field, text)
    headers = [*own, *headers_of(error, "t", 0, 1)]
    assert original(headers) == own
    assert read(headers) is not None
    assert read(own) is None


def test_a_field_that_is_no_unicode_does_not_stop_the_letter():
    error = InvalidMessage("malformed", "\ud800", "\ud800")
    assert read(headers_of(error, "t", 0, 1)).field == "?"

"""The reader's rule, as a consumer in any language follows it."""

import hashlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import AllocationFork, AllocationGap
from streams.reports.allocation_reader import REMEMBERED, AllocationReader


def chain(count, portfolio="main", first=1, previous=""):
    """Return the records of a portfolio, each with the hash of the one before."""
    records = []
    for sequence in range(first, first + count):
        fields = {"portfolio_id": portfolio, "previous_hash": previous, "sequence": sequence}
        records.append(orjson.dumps(fields))
        previous = hashlib.sha256(records[-1]).hexdigest()
    return records


def taken(records):
    reader = AllocationReader()
    return [found.fields["sequence"] for record in records if (found := reader.take(record)) is not None]


def test_the_next_is_taken():
    assert taken(chain(5)) == [1, 2, 3, 4, 5]


def test_what_is_taken_is_the_record_as_it_came():
    (record,) = chain(1)
    found = AllocationReader().take(record)
    assert found.value == record
    assert found.fields == orjson.loads(record)


def test_a_repeat_is_dropped_and_counted():
    records = chain(3)
    reader = AllocationReader()
    for record in (*records, *records, records[1]):
        reader.take(record)
    assert (reader.last("main"), reader.repeats) == (3, 4)


def test_the_same_sequence_with_other_bytes_is_a_fork():
    records = chain(3)
    reader = AllocationReader()
    for record in records:
        reader.take(record)
    with pytest.raises(AllocationFork, match="sequence 2 was published with other bytes"):
        reader.take(records[1] + b" ")


def test_a_chain_that_does_not_continue_is_a_fork():
    records = chain(3)
    reader = AllocationReader()
    for record in records[:2]:
        reader.take(record)
    with pytest.raises(AllocationFork, match="sequence 3 must follow"):
        reader.take(chain(1, first=3, previous="0" * 64)[0])
    assert reader.last("main") == 2, "nothing was taken"
    assert reader.take(records[2]) is not None


def test_a_gap_is_told_and_reading_again_from_there_goes_on():
    records = chain(4)
    reader = AllocationReader()
    reader.take(records[0])
    with pytest.raises(AllocationGap, match="sequence must be 2, was 3"):
        reader.take(records[2])
    assert [reader.take(record) is not None for record in records] == [False, True, True, True]


def test_a_reader_may_start_in_mid_log_and_drops_what_is_lower_unseen():
    records = chain(6)
    assert taken(records[3:]) == [4, 5, 6]
    assert taken([*records[3:], records[0], b" " + records[1], records[5]]) == [4, 5, 6]


def test_one_that_starts_in_mid_log_still_sees_a_fork_behind_it():
    records = chain(6)
    reader = AllocationReader()
    for record in records[3:]:
        reader.take(record)
    with pytest.raises(AllocationFork):
        reader.take(records[4] + b" ")


def test_one_that_reads_the_whole_log_begins_with_the_first():
    reader = AllocationReader(whole=True)
    with pytest.raises(AllocationGap, match="sequence must be 1, was 2"):
        reader.take(chain(2)[1])
    assert [reader.take(record) is not None for record in chain(2)] == [True, True]


def test_portfolios_are_read_apart():
    one, other = chain(3, "one"), chain(3, "other")
    mixed = [record for pair in zip(one, other, strict=True) for record in pair]
    assert taken(mixed) == [1, 1, 2, 2, 3, 3]


def test_the_last_sequences_are_recognised_and_no_more_are_kept():
    records = chain(REMEMBERED + 10)
    reader = AllocationReader()
    for record in records:
        reader.take(record)
    assert len(reader._portfolios["main"].hashes) == REMEMBERED
    assert reader.take(records[0] + b" ") is None, "too far back to tell"
    with pytest.raises(AllocationFork):
        reader.take(records[10] + b" ")


def test_nothing_was_taken_of_a_portfolio_that_was_never_seen():
    assert AllocationReader().last("nobody") == 0


@given(st.lists(st.integers(0, 7), max_size=40))
def test_whatever_comes_again_in_whatever_order_each_sequence_is_taken_once(places):
    records = chain(8)
    reader = AllocationReader()
    found = []
    for place in places:
        try:
            allocation = reader.take(records[place])
        except AllocationGap:
            assert place + 1 > reader.last("main") + 1
            continue
        if allocation is not None:
            found.append(allocation.fields["sequence"])
    first = places[0] + 1 if places else 0
    assert found == list(range(first, first + len(found)))

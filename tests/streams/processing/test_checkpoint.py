"""Versions, digest and ledger: what a checkpoint writes, and what is read of it wherever the writer died."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.processing.checkpoint import (
    BEGINNING,
    Ledger,
    Progress,
    Version,
    digest,
    fingerprint,
    newest,
    pack,
    term,
    unpack,
)
from streams.processing.memory_cluster import Stored

VALUES = st.one_of(st.none(), st.binary(max_size=20))
VERSIONS = st.lists(st.builds(Version, st.integers(0, 2**62), VALUES), max_size=3)
KEYS = st.tuples(st.sampled_from(["books", "claims"]), st.sampled_from([b"p", b"q", b"r"]))


@given(VERSIONS)
def test_versions_come_out_of_their_bytes_as_they_went_in(versions):
    assert unpack(pack(*versions)) == tuple(versions)


def test_a_record_of_two_versions_is_twelve_bytes_more_a_version_than_its_values():
    assert pack(Version(1, b"A"), Version(258, None)) == bytes.fromhex("0100000000000000 01000000 41") + bytes.fromhex(
        "0201000000000000 ffffffff"
    )


@given(VERSIONS, st.data())
def test_a_record_cut_anywhere_has_the_versions_before_the_cut_or_none(versions, data):
    frame = pack(*versions)
    cut = unpack(frame[: data.draw(st.integers(0, len(frame)))])
    assert cut == tuple(versions)[: len(cut)]


@pytest.mark.parametrize(("offset", "value"), [(2, None), (3, b"A"), (6, b"A"), (7, b"B"), (8, b"B")])
def test_the_newest_version_not_above_an_offset_counts(offset, value):
    found = newest((Version(3, b"A"), Version(7, b"B")), offset)
    assert (found and found.value) == value


@given(st.dictionaries(KEYS, st.binary(max_size=9)))
def test_the_digest_is_the_sum_of_the_hashes_of_all_records_in_any_order(records):
    hashes = [
        hashlib.sha256(
            len(table).to_bytes(4, "little") + len(key).to_bytes(4, "little") + table.encode() + key + value
        ).hexdigest()
        for (table, key), value in reversed(records.items())
    ]
    assert digest(records) == sum(int(text, 16) for text in hashes) % 2**256


def test_no_two_records_run_into_each_other():
    assert len({term(("ab", b"c"), b"d"), term(("a", b"bc"), b"d"), term(("a", b"b"), b"cd")}) == 3


def test_key_and_value_make_the_fingerprint_and_where_one_ends_counts():
    prints = {fingerprint(Stored(0, key, value)) for key, value in [(b"ab", b"c"), (b"a", b"bc"), (None, b"abc")]}
    assert len(prints) == 3
    assert fingerprint(Stored(7, b"ab", b"c", (("h", b"1"),))) in prints


def test_progress_is_json_and_comes_out_as_it_went_in():
    progress = Progress(7, 2**255 + 1, "ab", 9, {"high": 3})
    assert Progress.from_bytes(progress.to_bytes()) == progress
    assert progress.to_bytes() == (
        b'{"digest":"8000000000000000000000000000000000000000000000000000000000000001",'
        b'"entry":"ab","meta":{"high":3},"offset":7,"outputs":9}'
    )
    assert Progress.from_bytes(BEGINNING.to_bytes()) == BEGINNING


# -- the ledger --------------------------------------------------------------------------------------------------------
BOOK, CLAIM, TARGET = ("books", b"p"), ("claims", b"p1"), ("targets", b"p")


def read(frames, offset):
    return Ledger.read({key: unpack(frame) for key, frame in frames.items()}, offset)


def test_a_checkpoint_by_hand():
    ledger = read({BOOK: pack(Version(3, b"A")), CLAIM: pack(Version(4, b"C"))}, 5)
    now = {BOOK: b"B", TARGET: b"T"}
    batch = ledger.batch({BOOK: 7, CLAIM: 8, TARGET: 9}, now.get, 9)
    assert batch.changes == {
        BOOK: pack(Version(3, b"A"), Version(7, b"B")),
        CLAIM: pack(Version(4, b"C"), Version(8, None)),
        TARGET: pack(Version(9, b"T")),
    }
    assert batch.digest == digest(now)
    ledger.settle(batch)
    assert ledger.records() == now
    assert ledger.batch({}, now.get, 10).changes == {CLAIM: None}  # its tombstone, a checkpoint later
    ledger.settle(ledger.batch({}, now.get, 10))
    assert ledger.batch({}, now.get, 11).changes == {}


def test_what_has_a_version_above_progress_is_written_again_and_never_kept_as_the_older_one():
    frames = {
        BOOK: pack(Version(3, b"A"), Version(7, b"B")),
        CLAIM: pack(Version(8, b"C")),
        TARGET: b"damaged",
    }
    ledger = read(frames, 5)
    assert ledger.records() == {BOOK: b"A"}
    changes = ledger.batch({BOOK: 6}, {BOOK: b"D"}.get, 6).changes
    assert changes == {
        BOOK: pack(Version(3, b"A"), Version(6, b"D")),
        CLAIM: pack(Version(6, None)),
        TARGET: pack(Version(6, None)),
    }
    assert ledger.batch({}, {BOOK: b"A"}.get, 6).changes[BOOK] == pack(Version(3, b"A"))


def test_a_stamp_at_or_below_progress_counts_as_above_it():
    ledger = read({BOOK: pack(Version(3, b"A"))}, 5)
    frame = ledger.batch({BOOK: 5}, {BOOK: b"B"}.get, 6).changes[BOOK]
    assert unpack(frame) == (Version(3, b"A"), Version(6, b"B"))


def test_a_deletion_that_is_undone_before_its_tombstone_gets_none():
    ledger = read({BOOK: pack(Version(3, b"A"), Version(5, None))}, 5)
    assert ledger.records() == {}
    assert ledger.batch({BOOK: 6}, {BOOK: b"B"}.get, 6).changes == {BOOK: pack(Version(6, b"B"))}
    assert ledger.batch({}, {}.get, 6).changes == {BOOK: None}


def test_tables_are_repaired_where_they_read_otherwise_and_left_alone_elsewhere():
    ledger = Ledger.of({BOOK: 2, CLAIM: 3, TARGET: 4}, {BOOK: b"A", TARGET: b"T"}.get, 5)
    stray, above = ("books", b"x"), ("books", b"y")
    stored = {
        BOOK: (Version(2, b"A"), Version(9, b"Z")),
        TARGET: (Version(4, b"wrong"),),
        CLAIM: (Version(3, None),),
        stray: (Version(1, b"S"),),
        above: (Version(6, b"S"),),
    }
    assert ledger.repair(stored) == {TARGET: pack(Version(4, b"T")), stray: None}


STEPS = st.lists(
    st.tuples(
        st.dictionaries(KEYS, VALUES, max_size=4),  # what the entries since the last checkpoint left
        st.integers(0, 8),  # how many of the checkpoint's records land before a crash (if there is one)
        st.booleans(),  # a crash before progress is acknowledged
    ),
    max_size=8,
)


@given(STEPS)
def test_wherever_the_writer_died_the_tables_read_as_they_were_at_the_last_progress(steps):
    tables, state, at_progress, offset, progress = {}, {}, {}, -1, -1
    ledger = Ledger({}, -1)
    for changed, landed, crash in steps:
        offset += 3
        touched = {key: offset - i % 3 for i, key in enumerate(changed)}
        state = {key: value for key, value in {**state, **changed}.items() if value is not None}
        batch = ledger.batch(touched, state.get, offset)
        assert batch.digest == digest(state)
        for key, frame in list(batch.changes.items())[: landed if crash else None]:
            tables.pop(key, None) if frame is None else tables.update({key: frame})
        if crash:
            state, offset = dict(at_progress), progress
            ledger = read(tables, progress)
        else:
            ledger.settle(batch)
            at_progress, progress = dict(state), offset
        assert read(tables, progress).records() == ledger.records() == at_progress
        assert read(tables, progress).digest == ledger.digest == digest(at_progress)

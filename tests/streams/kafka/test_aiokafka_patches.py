"""A header whose name is no UTF-8 does not stop a consumer; all else of its record, and its neighbours, stay."""

import struct

import pytest
from aiokafka import TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import aiokafka_patches
from streams.kafka.aiokafka_patches import CODECS, legible

PLACE = TopicPartition("signals", 0)
CODES = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch(base, records, code=0, patch=()):
    """Return a batch of (key, value, headers), with bytes patched in before it is compressed."""
    builder = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 20
    )
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, 1_700_000_000_000, key, value, headers)
    raw = bytearray(builder.build())
    for old, new in patch:
        assert len(old) == len(new)
        raw = raw.replace(old, new)
    if code:
        pack = {1: codec.gzip_encode, 2: codec.snappy_encode, 3: codec.lz4_encode, 4: codec.zstd_encode}[code]
        raw = raw[:61] + pack(bytes(raw[61:]))
        struct.pack_into(">h", raw, 21, code)
    struct.pack_into(">qi", raw, 0, base, len(raw) - 12)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def consumed(raw, first=0):
    """Return what a consumer hands out of fetched bytes, and where it goes on."""
    records = fetcher.PartitionRecords(
        PLACE, fetcher.MemoryRecords(raw), None, first, None, None, check_crcs=True, isolation_level=0
    )
    found = [(r.offset, r.key, r.value, r.headers) for r in records]
    return found, records.next_fetch_offset


ROWS = [
    (b"k", b"one", [("zz", b"1"), ("fine", None)]),
    (None, b"two", []),
    (b"", None, [("né", b"\xff"), ("zz", b"")]),
]


def test_every_consumer_of_this_process_is_tolerant():
    aiokafka_patches.tolerate()
    assert fetcher.MemoryRecords is aiokafka_patches.Remembered
    before = fetcher.PartitionRecords._unpack_records
    aiokafka_patches.tolerate()
    assert fetcher.PartitionRecords._unpack_records is before


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("first", [0, 11])
def test_a_name_that_is_no_text_is_replaced_and_all_else_comes_as_it_is(code, first):
    raw = (
        batch(10, [(b"k", b"before", [])])
        + batch(11, ROWS, code, [(b"zz", b"\xff\x7e")])
        + batch(14, [(b"k", b"after", [("né", b"x")])])
    )
    found, end = consumed(raw, first)
    expected = [
        (10, b"k", b"before", ()),
        (11, b"k", b"one", (("?~", b"1"), ("fine", None))),
        (12, None, b"two", ()),
        (13, b"", None, (("né", b"\xff"), ("?~", b""))),
        (14, b"k", b"after", (("né", b"x"),)),
    ]
    assert found == [row for row in expected if row[0] >= first]
    assert end == 15
    assert len(legible(raw)) >= 3 * 61


@pytest.mark.parametrize("bad", range(4))
@pytest.mark.parametrize("first", [10, 12, 14])
def test_nothing_comes_twice_whichever_record_has_the_name(bad, first):
    """A broker gives whole batches, from the one that holds the offset asked for."""
    made = [
        batch(
            base, [(b"k", b"v", [("zz" if base + n == 10 + bad * 2 + 1 else "ok", b"1")]) for n in range(4)], 0, patch
        )
        for base in (10, 14)
        for patch in ([(b"zz", b"\xff\xfe")] if base <= 11 + bad * 2 < base + 4 else [],)
    ]
    found, end = consumed(b"".join(made[first // 14 :]), first)
    assert [offset for offset, *_ in found] == list(range(first, 18))
    assert end == 18


headers = st.lists(st.tuples(st.text(max_size=6), st.none() | st.binary(max_size=6)), max_size=3)
rows = st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9), headers), min_size=1)


@given(rows, st.sampled_from(sorted(CODES.values())), st.binary(max_size=70))
def test_what_is_legible_stays_to_the_byte(records, code, rest):
    raw = batch(5, records, code)
    assert legible(raw + rest) == raw + rest or len(rest) > 61
    assert consumed(raw)[0] == [(5 + n, k, v, tuple(h)) for n, (k, v, h) in enumerate(records)]


@given(rows)
def test_a_changed_batch_is_a_whole_one(records):
    marked = [(key, value, [*own, ("qqqq", b"v")]) for key, value, own in records]
    changed = legible(batch(5, marked, 1, [(b"qqqq", b"\xf0\x28\x8c\x28")]))
    assert struct.unpack_from(">h", changed, 21)[0] & CODECS == 0
    assert struct.unpack_from(">I", changed, 17)[0] == calc_crc32c(changed[21:])
    assert [row[3][-1] for row in consumed(changed)[0]] == [("?(?(", b"v")] * len(records)

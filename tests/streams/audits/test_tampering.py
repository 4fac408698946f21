"""Whatever is done to the journal, to what was published or to a checkpoint: found, and the place is named.

Everything runs on plain records through the code of `audit verify`: the stretch, the plan, the conclusion.
"""

import asyncio
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SYMBOLS, Driver, priced, signal

from engines.state.tables import TABLES
from schemas.errors import VerificationMismatch
from streams.audits.plan import Ends, Mark, Range, by_partition, planned, shared
from streams.audits.refold import Checkpoint, Refold
from streams.audits.segment import SegmentAudit
from streams.audits.shards import OF_A_PORTFOLIO, Part
from streams.audits.verdict import concluded
from streams.journal import entries as journal
from streams.processing.checkpoint import Ledger, Progress, unpack
from streams.processing.memory_cluster import Stored


def day():
    """Return journal, allocations and checkpoint of a short day of four portfolios, on one partition."""
    driver = priced(Driver(partitions=1))
    for number in range(20):
        fields = {"symbol": SYMBOLS[number % 3], "portfolio_id": f"p{number % 4}", "signal_id": f"s-{number}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **fields))
        driver.advance(1.0)
        if number == 11:
            driver.checkpoint()
    progress = Progress.from_bytes(driver.cluster.changelog("sizing", "progress", 0).records[-1].value)
    frames = {
        (table, record.key): record.value
        for table in TABLES
        for record in driver.cluster.changelog("sizing", table, 0).records
    }
    ledger = Ledger.read({key: unpack(frame) for key, frame in frames.items()}, progress.offset)
    assert ledger.digest == progress.digest
    logs = [driver.cluster.log(topic, 0).read(0) for topic in (journal.TOPIC, "allocations")]
    return *logs, progress, ledger.records()


JOURNAL, PUBLISHED, PROGRESS, RECORDS = day()
CHECKPOINT = Checkpoint(PROGRESS.offset, PROGRESS.digest, PROGRESS.entry, PROGRESS.outputs, PROGRESS.meta, RECORDS)
LIVE = Mark(CHECKPOINT.offset, CHECKPOINT.outputs, CHECKPOINT.now_ns, "live")


async def chunks(records, first, end):
    found = [each for each in records if first <= each.offset < end]
    for start in range(0, len(found), 7):
        yield found[start : start + 7]


def verify(entries=JOURNAL, published=PUBLISHED, progress=PROGRESS, *, processes=1, wanted=Range(), start=None):  # noqa: B008
    ends = Ends(entries[-1].offset + 1, published[-1].offset + 1, progress.offset, [LIVE] if start else [])
    pieces = shared(planned(0, ends, wanted, None), processes)

    async def one(piece):
        begin = [start] if piece.start.offset >= 0 else []
        stretch = SegmentAudit(0, *begin, part=piece.part, probe=piece.probe, until_ns=piece.until_ns)
        logs = (
            chunks(entries, piece.start.offset + 1, piece.end),
            chunks(published, piece.start.outputs, piece.outputs_end),
        )
        return await stretch.verify(*logs, open_end=piece.open_end)

    return concluded(pieces, [asyncio.run(one(piece)) for piece in pieces], {0: progress}, None)


def renumbered(records):
    """Return records as a topic that was written anew holds them."""
    return [each._replace(offset=number) for number, each in enumerate(records)]


def flipped(records, place, byte=None):
    value = bytearray(records[place].value)
    value[len(value) // 2 if byte is None else byte] ^= 1
    return [*records[:place], records[place]._replace(value=bytes(value)), *records[place + 1 :]]


def rekeyed(records, place, key):
    return [*records[:place], records[place]._replace(key=key), *records[place + 1 :]]


def swapped(records, one, other):
    found = list(records)
    found[one], found[other] = found[other]._replace(offset=one), found[one]._replace(offset=other)
    return found


SIGNALS = [each.offset for each in JOURNAL if b'"kind":"signal"' in each.value]
S = SIGNALS[7]
"""A journal entry in the middle; allocation 7 is its."""
OF_S = next(each.offset for each in PUBLISHED if orjson.loads(each.value)["journal"]["offset"] == S)
TWIN = OF_S + 4
"""The next allocation of the same portfolio."""


def test_the_day_verifies_and_its_checkpoint_is_met():
    found = verify()
    assert (found.ok, found.checked, found.entries, found.pending) == (True, len(PUBLISHED), len(JOURNAL), 0)
    assert PROGRESS.offset in range(S, len(JOURNAL) - 1)


# -- the journal -------------------------------------------------------------------------------------------------------
OF_THE_JOURNAL = {
    "one byte of the value": (flipped(JOURNAL, S), f"journal 0:{S}"),
    "one byte of the key": (
        rekeyed(JOURNAL, S, b"q3"),
        f"journal 0:{S} cannot be folded: ValueError: key is b'q3'",
    ),
    "a space more": (
        [*JOURNAL[:S], JOURNAL[S]._replace(value=JOURNAL[S].value.replace(b":", b": ", 1)), *JOURNAL[S + 1 :]],
        f"journal 0:{S}",
    ),
    "dropped": (JOURNAL[:S] + JOURNAL[S + 1 :], f"journal 0:{S} is missing, next is offset {S + 1}"),
    "dropped, and written anew": (renumbered(JOURNAL[:S] + JOURNAL[S + 1 :]), f"journal 0:{S}"),
    "inserted": (
        renumbered([*JOURNAL[:S], Stored(0, None, journal.internal("tick", {}, 1)), *JOURNAL[S:]]),
        f"journal 0:{S + 1}",
    ),
    "doubled": (renumbered([*JOURNAL[: S + 1], JOURNAL[S], *JOURNAL[S + 1 :]]), f"journal 0:{S + 1}"),
    "swapped": (swapped(JOURNAL, S, SIGNALS[8]), f"journal 0:{S}"),
    "no value": ([*JOURNAL[:S], JOURNAL[S]._replace(value=None), *JOURNAL[S + 1 :]], f"journal 0:{S} cannot be folded"),
    "no entry": (
        [*JOURNAL[:S], JOURNAL[S]._replace(value=b"{}"), *JOURNAL[S + 1 :]],
        f"journal 0:{S} cannot be folded",
    ),
    "Genesis": (flipped(JOURNAL, 0), "journal 0:0"),
    "tail cut below the checkpoint": (JOURNAL[: PROGRESS.offset], f"journal 0 ends at {PROGRESS.offset}"),
    "tail cut above the checkpoint": (JOURNAL[: SIGNALS[-1]], "published, but not in the journal"),
}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(("entries", "named"), OF_THE_JOURNAL.values(), ids=OF_THE_JOURNAL)
def test_a_journal_that_was_touched_is_found_and_the_place_is_named(entries, named, processes):
    found = verify(entries, processes=processes)
    assert not found.ok
    text = found.first_mismatch
    stretch = re.search(r"not decided from journal 0:(\d+) to (\d+)", text)
    assert named in text or (stretch and named == f"journal 0:{S}" and int(stretch[1]) <= S <= int(stretch[2])), text


@given(st.sampled_from(SIGNALS), st.data())
def test_any_byte_of_any_signal_counts(place, data):
    found = verify(flipped(JOURNAL, place, data.draw(st.integers(0, len(JOURNAL[place].value) - 1))))
    assert not found.ok
    assert found.first_mismatch


def test_an_entry_that_decided_nothing_counts_too():
    """A tick, a step, a late entry past the last decision: the hash of inputs, or the checkpoint, tells."""
    for place in range(PROGRESS.offset + 1):
        assert not verify(flipped(JOURNAL, place, 3)).ok, place


# -- what was published ------------------------------------------------------------------------------------------------
AT = f"allocations 0:{OF_S}"
OF_ALLOCATIONS = {
    "one byte of the value": (flipped(PUBLISHED, OF_S), AT),
    "one byte of the key": (rekeyed(PUBLISHED, OF_S, b"q3"), f"{AT} has key b'q3'"),
    "somebody else's key": (rekeyed(PUBLISHED, OF_S, PUBLISHED[OF_S + 1].key), AT),
    "dropped": (PUBLISHED[:OF_S] + PUBLISHED[OF_S + 1 :], f"allocations 0:{TWIN}"),
    "dropped, and written anew": (renumbered(PUBLISHED[:OF_S] + PUBLISHED[OF_S + 1 :]), f"allocations 0:{TWIN - 1}"),
    "doubled with another byte": (
        renumbered([*PUBLISHED, flipped(PUBLISHED, OF_S)[OF_S]]),
        f"allocations 0:{len(PUBLISHED)}",
    ),
    "swapped": (swapped(PUBLISHED, OF_S, TWIN), AT),
    "no allocation": ([*PUBLISHED[:OF_S], PUBLISHED[OF_S]._replace(value=b"{}"), *PUBLISHED[OF_S + 1 :]], AT),
    "nothing": ([*PUBLISHED[:OF_S], PUBLISHED[OF_S]._replace(value=None), *PUBLISHED[OF_S + 1 :]], AT),
    "tail cut below the checkpoint": (PUBLISHED[: OF_S + 1], "is missing"),
}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(("published", "named"), OF_ALLOCATIONS.values(), ids=OF_ALLOCATIONS)
def test_what_was_published_and_then_touched_is_found_and_the_place_is_named(published, named, processes):
    found = verify(published=published, processes=processes)
    assert not found.ok
    assert named in found.first_mismatch


def inserted(**change):
    fields = {**orjson.loads(PUBLISHED[OF_S].value), **change}
    value = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    record = Stored(0, fields["portfolio_id"].encode(), value)
    return renumbered([*PUBLISHED[: OF_S + 1], record, *PUBLISHED[OF_S + 1 :]])


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(
    "change", [{"sequence": 77}, {"sequence": 0}, {"sequence": -5}, {"portfolio_id": "stranger"}, {"final": None}]
)
def test_an_allocation_that_nobody_decided_is_found(change, processes):
    found = verify(published=inserted(**change), processes=processes)
    assert not found.ok
    assert f"allocations 0:{OF_S + 1}" in found.first_mismatch


@pytest.mark.parametrize("processes", [1, 3])
def test_equal_copies_are_repeats_wherever_they_come(processes):
    copies = renumbered([*PUBLISHED[:9], *PUBLISHED[:5], *PUBLISHED[9:], PUBLISHED[0]])
    found = verify(published=copies, processes=processes)
    assert (found.ok, found.repeats, found.checked) == (True, 6, len(PUBLISHED))


def test_a_tail_above_the_checkpoint_may_be_on_its_way():
    found = verify(published=PUBLISHED[:-2])
    assert (found.ok, found.pending) == (True, 2)


# -- checkpoints -------------------------------------------------------------------------------------------------------
OF_PROGRESS = {
    "digest": (PROGRESS._replace(digest=PROGRESS.digest ^ 1), "digest differs from the replayed state"),
    "entry": (PROGRESS._replace(entry=PROGRESS.entry[::-1]), "journal entry differs from the one folded"),
    "time": (PROGRESS._replace(meta={**PROGRESS.meta, "now_ns": 1}), "metadata differs from the replayed state"),
}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize(("progress", "named"), OF_PROGRESS.values(), ids=OF_PROGRESS)
def test_a_progress_that_was_touched_is_found_and_its_entry_named(progress, named, processes):
    found = verify(progress=progress, processes=processes)
    assert (found.ok, found.checkpoints_broken, found.mismatched) == (False, 1, 0)
    assert f"progress of journal 0 at entry {PROGRESS.offset}: {named}" in found.first_mismatch


@pytest.mark.parametrize("key", [key for key in RECORDS if key[0] in {"books", "markets", "targets"}], ids=str)
def test_a_record_of_a_checkpoint_that_was_touched_makes_another_digest(key):
    value = bytearray(RECORDS[key])
    value[len(value) // 2] ^= 1
    from streams.processing.checkpoint import digest  # noqa: PLC0415 (next to its one use)

    assert digest({**RECORDS, key: bytes(value)}) != PROGRESS.digest


def test_verification_from_the_live_checkpoint_checks_what_follows():
    wanted = Range(since=PROGRESS.offset + 1)
    found = verify(wanted=wanted, start=CHECKPOINT)
    later = [each for each in PUBLISHED if orjson.loads(each.value)["journal"]["offset"] > PROGRESS.offset]
    assert (found.ok, found.checked, found.entries) == (True, len(later), len(JOURNAL) - 1 - PROGRESS.offset)
    assert not verify(published=flipped(PUBLISHED, len(PUBLISHED) - 1), wanted=wanted, start=CHECKPOINT).ok
    assert not verify(entries=flipped(JOURNAL, SIGNALS[-1]), wanted=wanted, start=CHECKPOINT).ok


@pytest.mark.parametrize("place", range(2, len(JOURNAL), 5))
@pytest.mark.parametrize("processes", [1, 3])
def test_a_time_to_end_at_is_out_wherever_the_checkpoint_stands(place, processes):
    until_ns = orjson.loads(JOURNAL[place].value)["journaled_at_ns"]
    first = next(each.offset for each in JOURNAL if orjson.loads(each.value)["journaled_at_ns"] >= until_ns)
    found = verify(wanted=Range(until_ns=until_ns), processes=processes)
    earlier = [each for each in PUBLISHED if orjson.loads(each.value)["journal"]["offset"] < first]
    assert (found.ok, found.checked, found.entries) == (True, len(earlier), first)


# -- shares ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 3, 7])
def test_shares_of_the_portfolios_come_to_the_same_bytes_and_the_same_digest(count):
    whole = Refold(0)
    shares = [Refold(0, part=Part(number, count)) for number in range(count)]
    for entry in JOURNAL:
        decided = {each.value for each in whole.fold(entry).allocations}
        apart = set()
        for share in shares:
            apart |= {e.value for e in share.fold(entry).allocations if share.mine(e.decision.portfolio_id.encode())}
        assert apart == decided
    digests = [share.summary(None).digest for share in shares]
    assert sum(digests) % (1 << 256) == whole.summary(None).digest
    assert whole.records().keys() == {key for share in shares for key in share.records() if share.part.counts(key)}
    assert {share.meta()["inputs_hash"] for share in shares} == {whole.meta()["inputs_hash"]}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_share_goes_on_from_a_checkpoint_as_from_the_beginning(count):
    for number in range(count):
        part = Part(number, count)
        whole, resumed = Refold(0, part=part), Refold(0, CHECKPOINT, part)
        for entry in JOURNAL:
            decided = [
                each.value for each in whole.fold(entry).allocations if whole.mine(each.decision.portfolio_id.encode())
            ]
            if entry.offset > CHECKPOINT.offset:
                again = resumed.fold(entry).allocations
                assert [e.value for e in again if resumed.mine(e.decision.portfolio_id.encode())] == decided
        assert resumed.summary(JOURNAL[-1]) == whole.summary(JOURNAL[-1])


def test_one_portfolio_is_verified_without_folding_the_others():
    part = Part(portfolio="p2")
    refold = Refold(0, part=part)
    for entry in JOURNAL:
        refold.fold(entry)
    assert {key[1].split(b"|")[0] for key in refold.records() if key[0] in OF_A_PORTFOLIO} == {b"p2"}


@given(st.integers(1, 9), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_a_plan_covers_every_entry_of_every_portfolio_once(processes, sizes):
    pieces = [piece for p, size in enumerate(sizes) for piece in planned(p, Ends(size, size), Range(), None)]
    found = shared(pieces, processes)
    for partition, places in by_partition(found).items():
        own = [found[place] for place in places]
        for portfolio in (b"a", b"b", b"main", None):
            assert sum(piece.part.mine(portfolio) for piece in own) == 1
        assert {(piece.start.offset, piece.end) for piece in own} == {(-1, sizes[partition])}


def test_a_checkpoint_that_is_no_more_is_not_invented():
    with pytest.raises(VerificationMismatch, match="journal 0:0 is missing, next is offset 3"):
        Refold(0).fold(JOURNAL[3])

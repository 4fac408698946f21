"""`audit verify` finds whatever was done to what was published, and names it."""

import asyncio
import hashlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import SYMBOLS, Driver, priced, signal

from streams.audits import verify as audit
from streams.audits.verify import Verdict
from streams.journal import entries as journal
from streams.processing.memory_cluster import Stored


def day() -> tuple[list, list[bytes]]:
    """Return the journal and the allocations of a short day of two portfolios on one partition."""
    driver = priced(Driver(partitions=1))
    for number in range(8):
        given_ = {
            "symbol": SYMBOLS[number % 3],
            "portfolio_id": ("main", "alpha")[number % 2],
            "signal_id": f"s-{number}",
        }
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **given_))
        driver.advance(1.0)
    entries = driver.cluster.log(journal.TOPIC, 0).read(0)
    return entries, [record.value for record in driver.cluster.log("allocations", 0).read(0)]


ENTRIES, PUBLISHED = day()


async def _entries(entries):
    for entry in entries:
        yield entry


def _key(value):
    try:
        return orjson.loads(value)["portfolio_id"].encode()
    except (AttributeError, KeyError, TypeError, ValueError):
        return b"main"


def verify(published, portfolio=None, entries=ENTRIES):
    records = [Stored(place, _key(value), value) for place, value in enumerate(published)]
    return asyncio.run(audit.verify(0, _entries(entries), records, portfolio))


def test_what_was_published_as_decided_is_well():
    assert verify(PUBLISHED) == Verdict(checked=8, entries=len(ENTRIES))
    assert verify(PUBLISHED).ok


def test_what_was_published_twice_is_well_and_counted():
    assert verify([*PUBLISHED[:4], *PUBLISHED]) == Verdict(checked=8, repeats=4, entries=len(ENTRIES))


def test_one_portfolio_may_be_asked_for():
    assert verify(PUBLISHED, "alpha") == Verdict(checked=4, entries=len(ENTRIES))
    broken = [value.replace(b'"sequence":2', b'"sequence": 2') if b'"main"' in value else value for value in PUBLISHED]
    assert not verify(broken, "main").ok


@given(st.integers(0, len(PUBLISHED) - 1), st.data())
def test_one_changed_byte_is_found_and_named(which, data):
    value = bytearray(PUBLISHED[which])
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    found = verify([*PUBLISHED[:which], bytes(value), *PUBLISHED[which + 1 :]])
    assert not found.ok
    assert found.first_mismatch


@pytest.mark.parametrize("which", range(len(PUBLISHED)))
def test_a_changed_size_is_named_by_portfolio_sequence_and_place(which):
    fields = orjson.loads(PUBLISHED[which])
    fields["position_size_usd"] += 0.01
    forged = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    found = verify([*PUBLISHED[:which], forged, *PUBLISHED[which + 1 :]])
    assert found.mismatched == 1
    last = fields["sequence"] == 4
    assert found.chain_broken == (0 if last else 1), "the next one follows other bytes"
    assert f"{fields['portfolio_id']}" in found.first_mismatch


@pytest.mark.parametrize("which", range(len(PUBLISHED) - 1))
def test_a_dropped_allocation_is_found(which):
    found = verify(PUBLISHED[:which] + PUBLISHED[which + 1 :])
    fields = orjson.loads(PUBLISHED[which])
    assert found.mismatched == 1
    assert fields["portfolio_id"] in found.first_mismatch
    assert str(fields["sequence"]) in found.first_mismatch


@given(st.sets(st.integers(0, len(PUBLISHED) - 1)))
def test_each_gap_is_counted_once_however_many_follow(dropped):
    kept = [value for which, value in enumerate(PUBLISHED) if which not in dropped]
    gaps = 0
    for portfolio in ("main", "alpha"):
        found = [fields["sequence"] for fields in map(orjson.loads, kept) if fields["portfolio_id"] == portfolio]
        gaps += sum(after != before + 1 for before, after in zip([0, *found], found, strict=False))
    verdict = verify(kept)
    assert verdict.chain_broken == gaps
    assert verdict.mismatched + verdict.pending == len(dropped)


def test_a_copy_with_other_bytes_is_found_behind_a_gap_too():
    """What was known before a break is still known after it."""
    copy = PUBLISHED[0].replace(b'"final":true', b'"final": true')
    assert verify([*PUBLISHED[:2], *PUBLISHED[4:], copy]).chain_broken == 3


def test_a_forged_repeat_is_one_break_and_the_chain_goes_on_where_it_was():
    copy = PUBLISHED[0].replace(b'"final":true', b'"final": true')
    assert verify([*PUBLISHED[:6], copy, *PUBLISHED[6:]]).chain_broken == 1


def test_a_last_one_that_is_not_out_yet_is_pending_not_wrong():
    found = verify(PUBLISHED[:-1])
    assert (found.ok, found.checked, found.pending) == (True, 7, 1)


@pytest.mark.parametrize("which", range(len(PUBLISHED) - 2))
def test_swapped_allocations_of_a_portfolio_are_found(which):
    swapped = list(PUBLISHED)
    swapped[which], swapped[which + 2] = swapped[which + 2], swapped[which]
    found = verify(swapped)
    assert not found.ok
    assert found.chain_broken
    assert orjson.loads(PUBLISHED[which])["portfolio_id"] in found.first_mismatch


@pytest.mark.parametrize("change", [{"sequence": 5}, {"portfolio_id": "stranger"}, {"sequence": 1, "final": False}])
def test_an_allocation_that_the_journal_does_not_decide_is_found(change):
    fields = {**orjson.loads(PUBLISHED[-1]), **change}
    found = verify([*PUBLISHED, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)])
    assert not found.ok
    assert fields["portfolio_id"] in found.first_mismatch


def test_one_more_that_continues_the_chain_is_found_all_the_same():
    last = orjson.loads(PUBLISHED[-1])
    chained = {**last, "sequence": last["sequence"] + 1, "previous_hash": hashlib.sha256(PUBLISHED[-1]).hexdigest()}
    stranger = {**last, "sequence": 1, "portfolio_id": "stranger", "previous_hash": ""}
    for fields in (chained, stranger):
        found = verify([*PUBLISHED, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)])
        assert (found.mismatched, found.chain_broken) == (1, 0)
        assert "published, but not in the journal" in found.first_mismatch


def test_a_changed_input_is_found_from_there_on():
    """The inputs hash covers every byte of the journal, also those that changed no size."""
    entries = list(ENTRIES)
    place = next(i for i, entry in enumerate(entries) if orjson.loads(entry.value)["kind"] == "signal")
    entries[place] = entries[place]._replace(value=entries[place].value.replace(b'"headers":[]', b'"headers": []'))
    found = verify(PUBLISHED, entries=entries)
    assert found.mismatched == 8


@pytest.mark.parametrize("value", [b"", b"null", b"{}", b"\xff", b'{"portfolio_id": 1, "sequence": {}, "journal": 3}'])
def test_a_record_that_is_no_allocation_is_found_and_the_audit_goes_on(value):
    found = verify([*PUBLISHED[:3], value, *PUBLISHED[3:]])
    assert not found.ok
    assert found.checked == 8
    assert found.first_mismatch


def test_verdicts_of_partitions_add_up_and_the_first_finding_stays():
    one, other = Verdict(1, 2, 3, 4, 5, None), Verdict(10, 20, 30, 40, 50, "here")
    assert one + other + Verdict(first_mismatch="there") == Verdict(11, 22, 33, 44, 55, "here")
    assert Verdict().report()["first_mismatch"] is None

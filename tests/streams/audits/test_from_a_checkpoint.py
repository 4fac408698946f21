"""A decision is explained, proved and asked about from a checkpoint on as from the beginning."""

import asyncio
import json

import orjson
import pytest
from worlds import SYMBOLS, TRUSTING, Driver, control, priced, signal, with_

from streams.audits.refold import Checkpoint, Refold
from streams.evidence import verifier
from streams.evidence.bundle import Bundle
from streams.evidence.decision_id import parse
from streams.evidence.explain import account, again, copies
from streams.evidence.whatif import WhatIfDifference, _Pair, whatif
from streams.journal import entries as journal


def day():
    driver = priced(Driver(partitions=1))
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "symbol:SOL-USD", "state": "REDUCING"}))
    for number in range(8):
        fields = {"symbol": SYMBOLS[number % 3], "portfolio_id": f"p{number % 2}", "signal_id": f"s-{number}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **fields))
        driver.advance(1.0)
    return [driver.cluster.log(topic, 0).read(0) for topic in (journal.TOPIC, "allocations")]


ENTRIES, PUBLISHED = day()
LAST = orjson.loads(PUBLISHED[-1].value)
NAME = parse(LAST["decision_id"])
SMALLER = with_(TRUSTING, ("risk_management.max_position_pct", 0.05))


def checkpoint(offset):
    """Return the state after an entry, as an archive keeps it."""
    refold = Refold(0)
    for entry in ENTRIES[: offset + 1]:
        refold.fold(entry)
    summary = refold.summary(ENTRIES[offset])
    return Checkpoint(offset, summary.digest, summary.entry, 0, summary.meta, refold.records())


PLACES = range(3, NAME.offset, 3)


async def _after(offset):
    for entry in ENTRIES[offset + 1 :]:
        yield entry


async def _published():
    for record in PUBLISHED:
        yield record


async def explained(start):
    entries = _after(start.offset) if start else _after(-1)
    found = await again(NAME, entries, *([start] if start else []))
    return account(NAME, found, await copies(NAME, LAST["sequence"], _published()))


@pytest.mark.parametrize("offset", PLACES)
def test_an_explanation_differs_only_in_how_far_back_it_can_name_an_entry(offset):
    whole, told = asyncio.run(explained(None)), asyncio.run(explained(checkpoint(offset)))
    assert told["verification"]["status"] == "equal"

    def compare(path, one, other):
        if path.endswith(".entry") and one is not None:
            assert other is not None, path
            if one["journal_offset"] <= offset:
                assert (other["kind"], other["journal_offset"]) == ("checkpoint", offset), path
                return
        if path.endswith((".order", ".outcomes", ".learnt")):
            return
        assert type(one) is type(other), path
        if isinstance(one, dict):
            assert one.keys() == other.keys(), path
            for name in one:
                compare(f"{path}.{name}", one[name], other[name])
        elif isinstance(one, list):
            assert len(one) == len(other), path
            for number, pair in enumerate(zip(one, other, strict=True)):
                compare(f"{path}[{number}]", *pair)
        else:
            assert one == other, path

    compare("", whole, told)


@pytest.mark.parametrize("offset", PLACES)
def test_a_bundle_from_a_checkpoint_holds_less_and_proves_the_same(offset, tmp_path):
    start = checkpoint(offset)
    entries = [entry.value for entry in ENTRIES[offset + 1 : NAME.offset + 1]]
    bundle = Bundle(NAME, PUBLISHED[-1].value, entries, start)
    assert bundle.finding() == ""
    bundle.write(tmp_path / "proof.zip")
    code, said = verifier.verdict(tmp_path / "proof.zip")
    assert (code, f"after the checkpoint at entry {offset}, digest {start.digest:064x}" in said) == (0, True), said

    files = verifier.members(tmp_path / "proof.zip")
    told = json.loads(files["checkpoint.json"])
    table, key, value = told["records"][0]
    told["records"][0] = [table, key, value[:-4] + ("AAAA" if value[-4:] != "AAAA" else "BBBB")]
    changed = bundle._replace(start=start._replace(digest=start.digest ^ 1))
    assert "the checkpoint at entry" in changed.finding()
    with pytest.raises(verifier.Differs, match="was changed after bundling"):
        verifier.check({**files, "checkpoint.json": json.dumps(told).encode()})


@pytest.mark.parametrize("offset", PLACES)
def test_the_same_settings_change_nothing_from_any_checkpoint_on(offset):
    start = checkpoint(offset)
    found = asyncio.run(whatif(0, _after(offset), TRUSTING, start=start))
    decided = [each for each in PUBLISHED if orjson.loads(each.value)["journal"]["offset"] > offset]
    assert (found.decisions, found.changed, found.refused) == (len(decided), 0, 0)


def test_other_settings_are_in_force_from_the_checkpoint_on():
    offset = orjson.loads(PUBLISHED[4].value)["journal"]["offset"]
    found = asyncio.run(whatif(0, _after(offset), SMALLER, start=checkpoint(offset)))
    whole = asyncio.run(whatif(0, _after(-1), SMALLER))
    assert 0 < found.changed < whole.changed
    (first, *_) = sorted(found.biggest, key=lambda each: -each.earlier[0])
    changes = {change.symbol: change for change in first.changes}
    fields = orjson.loads(PUBLISHED[5].value)
    assert first.decision_id == fields["decision_id"]
    for symbol, change in changes.items():
        assert change.before_cents == round(100 * fields["targets"][symbol]["notional_usd"])


@pytest.mark.parametrize("offset", PLACES)
def test_what_is_held_at_the_checkpoint_stands_under_both_settings(offset):
    pair = _Pair(0, SMALLER, WhatIfDifference("other"), checkpoint(offset))
    published = {}
    for fields in (orjson.loads(record.value) for record in PUBLISHED):
        if fields["journal"]["offset"] <= offset:
            cents = {symbol: round(100 * target["notional_usd"]) for symbol, target in fields["targets"].items()}
            published[fields["portfolio_id"]] = {symbol: held for symbol, held in cents.items() if held}
    for side in pair._stands:
        found = {name: {symbol: stand.cents for symbol, stand in held.items()} for name, held in side.items()}
        assert found == {name: held for name, held in published.items() if held}

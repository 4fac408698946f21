"""One decision version takes over from another inside a journal: what is folded, refused, proved, and by whom."""

import asyncio

import pytest
from worlds import Driver, priced, signal

from engines.allocation import DECISION_VERSION
from engines.parameters import tree_hash
from schemas.errors import AnotherVersion, StrayRecord, VerificationMismatch
from streams.audits.comparison import Verdict
from streams.audits.refold import GENESIS
from streams.audits.segment import SegmentAudit, combine
from streams.audits.version_spans import Begun, begun
from streams.journal import entries as journal
from streams.journal import handover
from streams.processing.checkpoint import digest
from streams.processing.memory_cluster import LocalStore
from streams.stages.sizing import SizingFold

OLD, NEW, THIRD = DECISION_VERSION - 1, DECISION_VERSION, DECISION_VERSION + 1
TARGETS = "targets"


def forgetful(meta, records):
    """A migration that can be seen: the new version knows no targets."""
    return meta, {key: value for key, value in records.items() if key[0] != TARGETS}


def faithful(meta, records):
    return meta, records


MIGRATIONS = {(OLD, NEW): faithful, (NEW, THIRD): faithful}


def claim(driver, number, **given):
    driver.publish("signals", signal(driver.now_ns, signal_id=f"s-{number}", valid_for_s=86_400, **given))
    driver.advance(1.0)


def old(count=3, **given):
    """A journal that an old version made, with so many signals."""
    driver = priced(Driver(version=OLD, **given))
    for number in range(count):
        claim(driver, number, symbol=("BTC-USD", "ETH-USD", "SOL-USD")[number % 3], portfolio_id=f"p{number % 2}")
    return driver


def taken_over(driver, migrations=MIGRATIONS, version=NEW):
    places = driver.drain(version)
    driver.upgrade(version, migrations)
    return places


def versions(driver):
    return [fields["decision_version"] for fields in driver.allocations()]


def fold_of(driver, partition):
    return driver.processors["journal", partition][0]


def processor_of(driver, partition):
    return driver.processors["journal", partition][1]


def states(driver):
    """All records of every journal partition, as the fold has them."""
    driver.checkpoint()
    return [processor_of(driver, partition).records() for partition in range(driver.partitions)]


# -- handing over ----------------------------------------------------------------------------------------------------
def test_the_new_version_goes_on_where_the_old_one_stopped():
    driver, same = old(), old()
    before = len(driver.allocations())
    taken_over(driver)
    for each in (driver, same):
        claim(each, 9, expected_return=0.02)
    assert versions(driver)[:before].count(OLD) == before
    new = [each for each in driver.allocations() if each["decision_version"] == NEW]
    assert new
    went_on = [each for each in same.allocations() if each["trigger"]["id"] == "s-9"]
    theirs = [each for each in new if each["trigger"]["id"] == "s-9"]
    for one, other in zip(went_on, theirs, strict=True):
        assert one["allocations"] == other["allocations"]
        assert (one["sequence"], one["portfolio_id"]) == (other["sequence"], other["portfolio_id"])
        assert one["previous_hash"] == other["previous_hash"]


def test_what_still_waited_is_decided_by_the_old_version():
    driver = old()
    driver.publish("signals", signal(driver.now_ns, signal_id="late", portfolio_id="p0"))
    assert driver._ingest("signals")
    taken_over(driver)
    late = [each for each in driver.allocations() if each["trigger"]["id"] == "late"]
    assert {each["decision_version"] for each in late} == {OLD}


def test_a_migration_changes_what_the_new_version_knows_and_every_record_is_written_anew():
    driver = old()
    assert any(key[0] == TARGETS for records in states(driver) for key in records)
    taken_over(driver, {(OLD, NEW): forgetful})
    held = [fold_of(driver, partition).state.tables[TARGETS] for partition in range(driver.partitions)]
    assert held == [{}, {}]
    driver.advance(2.0)
    assert not any(key[0] == TARGETS for records in states(driver) for key in records)
    driver.crash()
    assert [fold_of(driver, partition).state.tables[TARGETS] for partition in range(driver.partitions)] == held


def test_a_chain_of_versions_is_taken_over_one_by_one():
    driver = old()
    taken_over(driver)
    claim(driver, 10, expected_return=0.02)
    taken_over(driver, version=THIRD)
    claim(driver, 11, expected_return=-0.02, action="sell")
    assert set(versions(driver)) == {OLD, NEW, THIRD}


def test_a_drain_that_was_broken_off_is_done_again_and_hands_over_once():
    driver = old()
    places = driver.drain(NEW)
    driver.start()
    assert driver.drain(NEW) == places
    engines = [e for e in entries(driver, 0) if e.kind == "engine" and "state" not in e.body]
    assert len(engines) == 1
    driver.upgrade(NEW, MIGRATIONS)
    claim(driver, 9)
    assert NEW in versions(driver)


class Crash(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("step", range(40))
def test_wherever_a_drain_crashes_the_next_one_ends_it(step):
    driver = old(2)
    left = [step]

    async def pause(_name):
        left[0] -= 1
        if left[0] == -1:
            raise Crash

    driver.pause = pause
    try:
        driver.start()
        driver.drain(NEW)
    except Crash:
        driver.pause = None
        driver.start()
        driver.drain(NEW)
    driver.pause = None
    driver.upgrade(NEW, MIGRATIONS)
    claim(driver, 9)
    assert verified(driver).ok
    assert NEW in versions(driver)


def test_what_others_append_behind_the_hand_over_does_not_keep_a_drain_from_ending():
    driver = old()
    for partition in range(driver.partitions):
        log = driver.cluster.log("journal", partition)
        log.append(None, handover.engine(OLD, NEW, driver.now_ns))
        log.append(None, journal.internal("tick", {}, driver.now_ns))
    places = driver.drain(NEW)
    assert [entries(driver, number)[place].kind for number, place in enumerate(places)] == ["engine", "engine"]
    driver.upgrade(NEW, MIGRATIONS)
    claim(driver, 9)
    assert verified(driver).ok


# -- refusing --------------------------------------------------------------------------------------------------------
def test_a_new_version_refuses_a_journal_that_was_not_handed_over_and_says_what_to_run():
    driver = old()
    driver.checkpoint()
    with pytest.raises(AnotherVersion, match=f"run version {OLD} with: himari worker --drain --to {NEW}"):
        driver.upgrade(NEW, MIGRATIONS)


def test_so_it_does_where_nothing_was_ever_checkpointed():
    driver = Driver(version=OLD)
    driver.upgrade(NEW, MIGRATIONS)
    with pytest.raises(AnotherVersion, match=f"himari worker --drain --to {NEW}"):
        driver.run()


def test_an_old_version_refuses_what_it_has_handed_over():
    driver = old()
    places = driver.drain(NEW)
    with pytest.raises(AnotherVersion, match=f"journal 0:{places[0] + 1} is of decision version {NEW}"):
        driver.run()
    driver.start()
    with pytest.raises(AnotherVersion, match=f"install version {NEW}"):
        driver.advance(2.0)


def test_an_old_version_refuses_what_the_new_one_has_gone_on_with():
    driver = old()
    taken_over(driver)
    claim(driver, 9)
    driver.checkpoint()
    with pytest.raises(AnotherVersion, match=f"is of decision version {NEW}, this is version {OLD}"):
        driver.upgrade(OLD, MIGRATIONS)


def test_a_version_that_it_was_not_handed_to_refuses():
    driver = old()
    driver.drain(NEW)
    with pytest.raises(AnotherVersion, match=f"was handed over to version {NEW}: install that"):
        driver.upgrade(THIRD, {(OLD, THIRD): faithful})


def test_a_version_that_knows_no_migration_refuses():
    driver = old()
    driver.drain(NEW)
    with pytest.raises(AnotherVersion, match=f"version {NEW} takes over from: {OLD - 1}"):
        driver.upgrade(NEW, {(OLD - 1, NEW): faithful})


def test_a_partition_is_not_handed_to_two():
    driver = old()
    driver.drain(NEW)
    driver.start()
    with pytest.raises(AnotherVersion, match=f"was handed over to version {NEW}, not {THIRD}"):
        driver.drain(THIRD)


def test_a_hand_over_that_does_not_come_from_the_version_in_force_is_no_journal():
    driver = old()
    driver.cluster.log("journal", 0).append(None, handover.engine(OLD + 7, NEW, driver.now_ns))
    with pytest.raises(StrayRecord, match=f"hands over from decision version {OLD + 7}, not {OLD}"):
        driver.run()


# -- proving ---------------------------------------------------------------------------------------------------------
def entries(driver, partition):
    return [journal.read(record.offset, record.value) for record in driver.cluster.log("journal", partition).read(0)]


def told(driver, partition):
    return [entry for entry in entries(driver, partition) if entry.kind == "engine" and "state" in entry.body]


def test_the_state_that_is_handed_over_stands_in_the_journal_with_its_digest():
    driver = old()
    places = driver.drain(NEW)
    for partition, place in enumerate(places):
        wait = handover.HandoverReader(NEW)
        (left,) = [found for each in entries(driver, partition) if (found := wait.take(each)) is not None]
        assert left.offset == place
        assert left.records == processor_of(driver, partition).records()
        assert f"{digest(left.records):064x}" == told(driver, partition)[0].body["state"]["digest"]
        assert left.meta["decision_version"] == OLD
        assert wait.versions == [(0, OLD, handover.package()), (place + 1, NEW, "")]


def test_the_old_version_can_show_that_it_left_just_that():
    driver = old()
    places = driver.drain(NEW)
    for partition, place in enumerate(places):
        fold = SizingFold(partition, version=OLD)
        touched = {}
        for record in driver.cluster.log("journal", partition).read(0, place + 1):
            fold.fold(record)
            touched |= fold.touched
        records = {key: value for key in touched if (value := fold.encode(key)) is not None}
        state = told(driver, partition)[0].body["state"]
        assert f"{digest(records):064x}" == state["digest"]
        assert handover.plain(fold.meta()) == state["meta"]


def test_a_large_state_is_told_in_parts(monkeypatch):
    monkeypatch.setattr(handover, "PART_BYTES", 300)
    driver = old()
    taken_over(driver)
    assert len(told(driver, 0)) > 3
    claim(driver, 9)
    assert verified(driver).ok


def test_a_record_that_is_not_the_one_that_was_left_is_found():
    driver = old()
    places = driver.drain(NEW)
    (part,) = told(driver, 0)
    part.body["state"]["records"][0][2] = "W10="
    wait = handover.HandoverReader(NEW)
    for entry in entries(driver, 0)[: places[0] + 1]:
        wait.take(entry)
    with pytest.raises(VerificationMismatch, match=f"handed over at entry {places[0]} does not have its digest"):
        wait.take(part)


def test_lost_tables_are_folded_again_from_the_hand_over():
    driver = old()
    taken_over(driver)
    for number in range(9, 14):
        claim(driver, number, expected_return=0.02)
    whole = states(driver)
    for stage, table in (("sizing", name) for name in SizingFold.tables):
        for partition in range(driver.partitions):
            driver.cluster._changelogs.pop((stage, table, partition), None)
    driver.stores = {place: LocalStore() for place in driver.stores}
    driver.start()
    assert states(driver) == whole
    claim(driver, 15, expected_return=0.03)
    assert verified(driver).ok


def test_settings_in_force_are_taken_along():
    driver = old()
    taken_over(driver)
    for partition in range(driver.partitions):
        state = fold_of(driver, partition).state
        assert state.settings_hash == state.progress.settings_hash == tree_hash(driver.params)


# -- the audit -------------------------------------------------------------------------------------------------------
async def _records(driver, partition, first=0):
    for record in driver.cluster.log("journal", partition).read(first):
        yield record


async def _chunks(records):
    yield records


async def _verified(driver):
    total = Verdict()
    for partition in range(driver.partitions):
        start = (await begun(partition, _records(driver, partition), NEW, MIGRATIONS)).start
        entries = driver.cluster.log("journal", partition).read(start.offset + 1)
        published = driver.cluster.log("allocations", partition).read(0)
        found = await SegmentAudit(partition, start).verify(_chunks(entries), _chunks(published))
        total += combine(partition, [found])
    return total


def verified(driver):
    """What this code's own version finds of its part of the journal."""
    return asyncio.run(_verified(driver))


def test_the_new_version_verifies_its_own_part_and_names_who_verifies_the_other():
    driver = old()
    before = len(driver.allocations())
    places = taken_over(driver)
    claim(driver, 9, portfolio_id="p0", expected_return=0.02)
    claim(driver, 10, portfolio_id="p1", expected_return=0.02)
    verdict = verified(driver)
    assert verdict.ok, verdict
    assert verdict.checked == len(driver.allocations()) - before > 0
    assert verdict.unchecked == before
    found = asyncio.run(begun(0, _records(driver, 0), NEW, MIGRATIONS))
    (other,) = found.others
    assert (other.first, other.last, other.version) == (0, places[0], OLD)
    assert str(other) == (
        f"entries from 0 to {places[0]} have decision version {OLD}: not checked here. "
        f"To check them: pip install himari-layer3=={handover.package()}; himari audit verify"
    )


def test_a_version_verifies_what_it_decided_before_it_handed_over():
    driver = old()
    taken_over(driver)
    claim(driver, 9, portfolio_id="p0", expected_return=0.02)
    mine = versions(driver).count(NEW)
    places = taken_over(driver, version=THIRD)
    claim(driver, 10, portfolio_id="p0", expected_return=-0.02, action="sell")
    claim(driver, 11, portfolio_id="p1", expected_return=-0.02, action="sell")
    assert versions(driver).count(THIRD) > 0
    verdict = verified(driver)
    assert verdict.ok, verdict
    assert verdict.checked == mine
    assert f"journal 0:{places[0] + 1} is of decision version {THIRD}, this is version {NEW}" in verdict.others[0]


def test_a_journal_without_a_part_of_this_version_is_refused_with_what_to_install():
    driver = old()
    with pytest.raises(AnotherVersion, match=f"no entries of decision version {NEW}: entries from 0 on have decision"):
        verified(driver)


def test_an_allocation_of_the_new_part_with_another_byte_is_found():
    driver = old()
    taken_over(driver)
    claim(driver, 9, expected_return=0.02)
    logs = [driver.cluster.log("allocations", partition) for partition in range(driver.partitions)]
    ((log, index),) = [(log, n) for log in logs for n, r in enumerate(log.records) if b'"id":"s-9"' in r.value]
    record = log.records[index]
    log.records[index] = record._replace(value=record.value.replace(b'"final":true', b'"final":null'))
    assert not verified(driver).ok


def test_a_journal_of_this_version_alone_begins_with_genesis():
    driver = priced()
    found = asyncio.run(begun(0, _records(driver, 0)))
    assert found == Begun(GENESIS, ())

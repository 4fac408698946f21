"""The whole topology under crashes: whatever is lost in memory, the journal decides, and each decision is out once.

A crash is the exception that a step of the ports raises; what was in flight then lands or is lost. `Driver.crash`
starts the worker again from tables and topics.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import orjson
import pytest
from golden import replay
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, SECOND_NS, SYMBOLS, TRUSTING, Driver, control, play, priced, scripts, signal, tick

from engines.fold import apply
from engines.handlers.effects import Journaled
from engines.parameters import DecisionParams
from engines.state.partition import GATHERED, State
from streams.audits import verify
from streams.journal import entries as journal
from streams.processing.memory_cluster import LocalStore, MemoryCluster, MemoryPorts, Stored
from streams.processing.processor import Processor
from streams.reports.allocation_reader import AllocationReader
from streams.stages.sizing import SizingFold

OUTPUTS = ("allocations", "rl-requests", "alerts", "signals.dlq", "outcomes.dlq")


class Crash(Exception):  # noqa: N818 (what happens, not what is wrong)
    """The machine is gone."""


class Fate:
    """Crashes at the steps whose numbers are drawn; calm once they are used up."""

    def __init__(self, gaps: list[int]) -> None:
        self.gaps = iter(gaps)
        self.left = next(self.gaps, None)
        self.crashes: list[str] = []

    async def __call__(self, step: str) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = next(self.gaps, None)
            self.crashes.append(step)
            raise Crash(step)


class Doomed(Driver):
    """A driver whose worker crashes where its fate says, and is started again until it stands."""

    def __init__(self, gaps: list[int], *, late: bool = False, again: int = 0, **given) -> None:
        """`late`: what was in flight at a crash lands; `again`: records that each ingest agent reads again."""
        self.fate, self.late, self.again = Fate([]), late, again
        super().__init__(pause=self._reach, **given)
        self.fate = Fate(gaps)

    async def _reach(self, step: str) -> None:
        await self.fate(step)

    def survive(self, work) -> bool:
        """Do work; where it crashes, start again. Tell whether it was done."""
        try:
            work()
        except Crash:
            self._restart()
            return False
        return True

    def _restart(self) -> None:
        while True:
            if self.late:
                self._land()
            for place, offset in self.committed.items():
                self.committed[place] = max(0, offset - self.again)
            try:
                self.crash()
            except Crash:
                continue
            return

    def _land(self) -> None:
        for ports in self.ports.values():
            while ports.flight:
                sent = ports.flight.pop(0)
                sent.log.append(sent.key, sent.value, sent.headers)

    def run(self) -> None:
        while not self.survive(super().run):
            pass

    def _elapse(self, place: tuple[str, int]) -> None:
        fold, processor = self.processors[place]
        _finish(processor.act(partial(fold.elapse, self.now_ns)))

    def advance(self, seconds: float) -> None:
        self.run()
        self.now_ns += int(seconds * SECOND_NS)
        for place in list(self.processors):
            while not self.survive(partial(self._elapse, place)):
                self.run()
        self.run()


def _finish(step):
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError


async def _entries(driver: Driver, partition: int):
    for record in driver.cluster.log(journal.TOPIC, partition).read(0):
        yield record


def audited(driver: Driver) -> verify.Verdict:
    """Compute every allocation again from the journal."""
    found = verify.Verdict()
    for partition in range(driver.partitions):
        published = driver.cluster.log("allocations", partition).read(0)
        found += asyncio.run(verify.verify(partition, _entries(driver, partition), published))
    return found


def taken(driver: Driver) -> dict[tuple[str, int], bytes]:
    """Return what a consumer takes, by (portfolio, sequence)."""
    found = {}
    for partition in range(driver.partitions):
        reader = AllocationReader()
        for record in driver.cluster.log("allocations", partition).read(0):
            allocation = reader.take(record.value or b"")
            if allocation is not None:
                found[allocation.fields["portfolio_id"], allocation.fields["sequence"]] = allocation.value
    return found


def decided(entries: Iterator[Journaled], partition: int) -> dict[tuple[str, int], bytes]:
    """Return what a fold that never crashes decides."""
    state = State(partition)
    return {
        (published.decision.portfolio_id, published.sequence): published.value
        for entry in entries
        for published in apply(state, entry).allocations
    }


def _read(driver: Driver, partition: int) -> Iterator[Journaled]:
    return (journal.read(r.offset, r.value or b"") for r in driver.cluster.log(journal.TOPIC, partition).read(0))


gaps = st.lists(st.integers(0, 60), min_size=1, max_size=12)


@settings(max_examples=40)
@given(scripts, gaps, st.booleans(), st.integers(0, 3), st.sampled_from((1, 3, 5_000)))
def test_whatever_crashes_each_decision_of_the_journal_is_out_once(script, gaps, late, again, checkpoint_entries):
    driver = priced(Doomed(gaps, late=late, again=again, checkpoint_entries=checkpoint_entries))
    play(driver, script)
    verdict = audited(driver)
    assert verdict.ok, verdict
    assert verdict.pending == 0
    found = taken(driver)
    assert found == {k: v for p in range(driver.partitions) for k, v in decided(_read(driver, p), p).items()}
    _each_signal_is_answered_once(driver, found)


def _each_signal_is_answered_once(driver, found):
    sent = {orjson.loads(record.value)["signal_id"] for record in driver.read("signals")}
    fields = map(orjson.loads, found.values())
    answered = Counter(one["trigger"]["id"] for one in fields if one["trigger"]["kind"] == "signal")
    assert answered == dict.fromkeys(sent, 1)


def test_a_crash_at_every_single_step_of_a_short_day_changes_nothing():
    calm = Doomed([])
    _short_day(calm)
    expected = _sizes(calm)
    steps = 0
    while True:
        driver = Doomed([steps], checkpoint_entries=4)
        _short_day(driver)
        assert audited(driver).ok
        assert _sizes(driver) == expected
        if not driver.fate.crashes:
            break
        steps += 1
    assert steps > 50, "the day has steps to crash at"


def _sizes(driver):
    return {place: orjson.loads(value)["targets"] for place, value in taken(driver).items()}


def _short_day(driver):
    priced(driver)
    driver.publish("signals", signal(driver.now_ns, signal_id="s-1", valid_for_s=86_400))
    driver.advance(1.0)
    driver.publish("prices", tick(driver.now_ns, price=60_000.0), key=b"BTC-USD")
    driver.advance(2.0)
    halt = {"scope": "all", "state": "HALTED"}
    driver.publish("control", control(driver.now_ns, "trading_state", halt))
    driver.advance(1.0)


# -- one journal, cut anywhere ---------------------------------------------------------------------------------------
class Left(NamedTuple):
    """What there is when a journal has been folded."""

    allocations: list[bytes]
    alerts: dict[str, bytes]
    """By id: those of what was lost are sent again."""
    records: dict[tuple[str, ...], bytes]
    """By table and key."""


def left_by(state, cluster, partition):
    alerts = [record.value for p in range(partition + 1) for record in cluster.log("alerts", p).read(0)]
    keys = [(table, key) for table, rows in state.tables.items() for key in rows]
    keys += [("correlations", (part,)) for part in (GATHERED, *state._parts)]
    return Left(
        [record.value for record in cluster.log("allocations", partition).read(0)],
        {orjson.loads(alert)["alert_id"]: alert for alert in alerts},
        {(table, *key): state.encode(table, key) for table, key in keys},
    )


def folded_with_cuts(records, partition, cuts, *, wiped):
    """Fold a journal, with a checkpoint and then a new process at each cut; return what is left."""
    cluster = MemoryCluster()
    for topic in (journal.TOPIC, *OUTPUTS):
        cluster.create(topic, partition + 1)
    store = LocalStore()
    log = cluster.log(journal.TOPIC, partition)
    for record in records:
        log.append(record.key, record.value, record.headers)
    following = 0
    for checkpoint, crash in [*cuts, (len(records), len(records))]:
        ports = MemoryPorts(
            cluster,
            processor="sizing",
            source=journal.TOPIC,
            partition=partition,
            tables=SizingFold.tables,
            store=LocalStore() if wiped else store,
        )
        fold = SizingFold(partition)
        processor = Processor(fold, ports, partition=partition, clock=lambda: 0)
        following = asyncio.run(processor.recover())
        asyncio.run(processor.take(log.read(following, checkpoint), lambda: None))
        asyncio.run(processor.checkpoint())
        asyncio.run(processor.take(log.read(checkpoint, crash), lambda: None))
    return left_by(fold.state, cluster, partition)


@settings(max_examples=40)
@given(scripts, st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 9), st.booleans())
def test_the_same_journal_cut_anywhere_and_recovered_gives_the_same_bytes(script, places, lost, wiped):
    driver = priced()
    play(driver, script)
    for partition in range(driver.partitions):
        records = driver.cluster.log(journal.TOPIC, partition).read(0)
        cuts = sorted(int(place * len(records)) for place in places)
        whole = [record.value for record in driver.cluster.log("allocations", partition).read(0)]
        crashes = [(cut, min(cut + lost, len(records))) for cut in cuts]
        assert folded_with_cuts(records, partition, crashes, wiped=wiped).allocations == whole


def of_minutes():
    """Return settings in which a bar is a minute long, and little is enough to learn from and to alert of."""
    tree = TRUSTING.model_dump()
    tree["market"]["bar_s"] = 60
    tree["risk_management"]["correlation"] |= {"alert_threshold": 0.1, "inactive_after_s": 3_600}
    tree["risk_management"]["drift_alert_threshold"] = 0.001
    tree["position_sizing"]["ensemble"] |= {"inactive_after_s": 3_600, "correlation_samples": 2}
    tree["rl"] |= {"enabled": True, "mode": "live", "deadline_s": 30.0}
    tree["rl"]["gate"] |= {"alpha": 0.5, "bound": 1e-6}
    return DecisionParams.model_validate(tree)


def march(driver, moves):
    """Let coins move together every 25 s: prices come before, at and well after the end of a bar."""
    for number in range(moves):
        for place, symbol in enumerate(SYMBOLS):
            price = PRICES[symbol] * (1.0 + 0.002 * (number * 3 % 7) + 0.001 * ((number * (place + 2)) % 5))
            driver.publish("prices", tick(driver.now_ns, symbol, price), key=symbol.encode())
        driver.advance(25.0)


late_prices = st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 300))


@settings(max_examples=20)
@given(
    st.tuples(scripts, scripts, late_prices),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 9),
    st.booleans(),
)
def test_what_was_learnt_and_told_is_the_same_wherever_the_journal_was_cut(world, places, lost, wiped):
    before, after, (symbol, age_s) = world
    driver = priced(Driver(of_minutes()))
    play(driver, before)
    march(driver, 70)
    driver.publish("prices", tick(driver.now_ns - age_s * SECOND_NS, symbol), key=symbol.encode())
    play(driver, after, len(before))
    for partition in range(driver.partitions):
        records = driver.cluster.log(journal.TOPIC, partition).read(0)
        cuts = sorted(int(place * len(records)) for place in places)
        crashes = [(cut, min(cut + lost, len(records))) for cut in cuts]
        whole = folded_with_cuts(records, partition, [], wiped=wiped)
        kinds = {orjson.loads(alert)["kind"] for alert in whole.alerts.values()}
        assert ("correlation" in kinds) == (partition == 0)
        assert folded_with_cuts(records, partition, crashes, wiped=wiped) == whole


def test_a_restart_after_every_entry_of_a_journal_leaves_the_same_behind():
    driver = priced(Driver(of_minutes(), partitions=1))
    march(driver, 66)
    for number, name in enumerate(("carry", "momentum") * 4):
        fields = signal(driver.now_ns, strategy_id=name, signal_id=f"s-{number}", expected_return=0.01 + 0.002 * number)
        driver.publish("signals", fields)
        driver.run()
        outcome = {"symbol": "BTC-USD", "side": 1, "realized_return": 0.03, "timestamp_ns": driver.now_ns}
        driver.publish("outcomes", {**outcome, "strategy_id": name, "signal_id": f"s-{number}"})
        march(driver, 1)
    for _ in range(2):
        driver.advance(200.0)
    records = driver.cluster.log(journal.TOPIC, 0).read(0)
    whole = folded_with_cuts(records, 0, [], wiped=False)
    kinds = Counter(orjson.loads(alert)["kind"] for alert in whole.alerts.values())
    assert kinds == {"correlation": kinds["correlation"], "drift": 1, "stale_price": 3}
    assert kinds["correlation"] >= 1
    assert folded_with_cuts(records, 0, [(cut, cut) for cut in range(len(records))], wiped=False) == whole


@pytest.mark.parametrize("wiped", [False, True])
def test_a_cap_that_a_rising_price_breaks_is_seen_after_a_recovery_too(wiped):
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400))
    driver.advance(1.0)
    for price in (44_000.0, 48_000.0, 52_500.0):
        driver.publish("prices", tick(driver.now_ns, price=price), key=b"BTC-USD")
        driver.advance(2.0)
    (partition,) = [p for p in range(2) if driver.cluster.log("allocations", p).end]
    whole = [record.value for record in driver.cluster.log("allocations", partition).read(0)]
    assert [orjson.loads(value)["trigger"]["kind"] for value in whole].count("cap") >= 2
    records = driver.cluster.log(journal.TOPIC, partition).read(0)
    for cut in range(len(records)):
        assert folded_with_cuts(records, partition, [(cut, cut)], wiped=wiped).allocations == whole, cut


@pytest.mark.parametrize("wiped", [False, True])
@pytest.mark.parametrize("lost", [0, 7])
def test_the_golden_journal_cut_at_forty_places_leaves_the_same_behind(wiped, lost):
    """It has every kind of entry and every trigger (tests/test_golden.py), so every record is brought back."""
    records = [Stored(offset, None, line) for offset, line in enumerate(replay.read())]
    whole = folded_with_cuts(records, 0, [], wiped=wiped)
    chance = random.Random(lost)
    cuts = sorted(chance.sample(range(len(records) - lost), 40))
    assert folded_with_cuts(records, 0, [(cut, cut + lost) for cut in cuts], wiped=wiped) == whole
    assert len(whole.allocations) == replay.replay(replay.read())["outputs"]["allocations"]

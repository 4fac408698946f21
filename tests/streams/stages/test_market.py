"""Market: ticks become steps; an obvious fold over all ticks is the oracle."""

import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.parameters import DecisionParams
from streams.journal import entries as journal
from streams.processing.memory_cluster import Stored
from streams.stages.market import LATENESS, OPEN, QUOTE, TABLE, MarketFold

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS


PARAMS = {
    step_s: DecisionParams.model_validate({"market": {"step_s": step_s, "bar_s": 8_400}})
    for step_s in (1, 2, 7, 10, 60)
}


class Bench:
    """A fold with a clock and a width that the test moves; what it notes is kept."""

    def __init__(self, step_s=1, partitions=2):
        self.now_ns, self.step_s = START_NS + 10**6 * SECOND_NS, step_s
        self.notes = []
        self.fold = MarketFold(
            3, partitions, lambda: PARAMS[self.step_s], lambda: self.now_ns, lambda *note: self.notes.append(note)
        )
        self.offset = -1

    def restart(self):
        """Go on from what the checkpoint holds."""
        keys = [OPEN, LATENESS, *((TABLE, QUOTE + symbol.encode()) for symbol in self.fold.quotes)]
        self.fold.restore({}, {key: self.fold.encode(key) for key in keys})

    def ticks(self, *ticks, **one):
        self.offset += 1
        body = {"ticks": list(ticks)} if ticks else one
        return self.fold.fold(Stored(self.offset, b"BTC", orjson.dumps(body)))


def tick(second, price=100.0, symbol="BTC", **given):
    return {"symbol": symbol, "price": price, "timestamp_ns": START_NS + int(second * SECOND_NS), **given}


def steps(sends):
    """Return (step, symbols) of the steps that the first journal partition gets."""
    read = [journal.read(0, send.value) for send in sends if send.topic == "journal" and send.partition == 0]
    return [(entry.body["step"], entry.body["symbols"]) for entry in read]


def step_of(second, step_s=1):
    return (START_NS + int(second * SECOND_NS) - 1) // (step_s * SECOND_NS)


def test_a_step_is_journaled_when_a_tick_of_a_later_one_comes():
    bench = Bench()
    assert bench.ticks(**tick(0.2, 100.0, volume=1.0)) == []
    assert bench.ticks(**tick(0.7, 98.0, low=91.0, high=105.0, volume=2.0)) == []
    assert bench.ticks(**tick(0.5, 95.0)) == []
    sends = bench.ticks(**tick(1.5, 96.0))
    assert steps(sends) == [(step_of(0.5), {"BTC": [100.0, 105.0, 91.0, 95.0, 3.0, 3]})]


def test_it_goes_to_every_journal_partition_alike_with_its_source():
    bench = Bench(partitions=5)
    bench.ticks(**tick(0.2))
    sends = bench.ticks(**tick(1.2))
    assert [send.partition for send in sends] == [0, 1, 2, 3, 4]
    assert len({send.value for send in sends}) == 1
    entry = journal.read(0, sends[0].value)
    assert (entry.body["source_partition"], entry.body["step_s"]) == (3, 1)
    assert orjson.loads(sends[0].value)["event_time_ns"] == (step_of(0.2) + 1) * SECOND_NS
    assert entry.journaled_at_ns == bench.now_ns


def test_a_tick_on_the_second_belongs_to_the_step_that_ends_there():
    bench = Bench()
    bench.ticks(**tick(1.0))
    bench.ticks(**tick(0.1))
    assert steps(bench.ticks(**tick(1.000000001)))[0][1]["BTC"][5] == 2


def test_a_tick_older_than_its_symbols_last_is_counted_as_late_and_reopens_nothing():
    bench = Bench()
    bench.ticks(**tick(0.5))
    bench.ticks(**tick(3.5))
    assert bench.ticks(tick(0.6, 99.0), tick(1.5, 98.0), tick(3.6, 101.0)) == []
    assert bench.notes == [("late_tick", 2)]
    assert steps(bench.fold.flush()) == [(step_of(3.5), {"BTC": [100.0, 101.0, 100.0, 101.0, 0.0, 2]})]


def test_a_tick_newer_than_its_symbols_last_counts_in_the_open_step_whatever_a_neighbours_clock_says():
    bench = Bench()
    bench.ticks(tick(0.5), tick(0.5, 10.0, "ETH"))
    sends = bench.ticks(tick(3.5, 101.0), tick(0.9, 10.1, "ETH"), tick(1.7, 10.2, "ETH"), tick(1.6, 10.3, "ETH"))
    assert bench.notes == [("late_tick", 1)]
    assert [step for step, _ in steps(sends)] == [step_of(0.5)]
    ((step, symbols),) = steps(bench.fold.flush())
    assert (step, symbols["ETH"]) == (step_of(3.5), [10.1, 10.2, 10.1, 10.2, 0.0, 2])


def test_a_tick_too_old_to_size_with_is_no_fresh_price_of_the_open_step():
    bench = Bench()
    bench.ticks(tick(0.5), tick(200.5))
    assert bench.ticks(tick(80.0, 10.0, "OLD"), tick(81.5, 10.0, "ETH")) == []
    assert bench.notes == [("late_tick", 1)], "the step ends at 201 s, and a price is too old after 120 s"
    assert list(steps(bench.fold.flush())[0][1]) == ["BTC", "ETH"]


def test_the_clock_closes_a_step_one_second_past_its_end():
    bench = Bench()
    bench.ticks(**tick(0.5))
    assert bench.fold.elapse(START_NS + 2 * SECOND_NS - 1) == []
    assert len(steps(bench.fold.elapse(START_NS + 2 * SECOND_NS))) == 1
    assert bench.fold.elapse(START_NS + 9 * SECOND_NS) == []
    assert bench.ticks(**tick(0.4)) == [], "older than the last: late"
    assert bench.notes == [("late_tick", 1)]
    assert bench.ticks(**tick(0.7)) == [], "newer: in the next step, for the other is closed"
    assert [step for step, _ in steps(bench.fold.elapse(START_NS + 3 * SECOND_NS))] == [step_of(1.5)]


def test_many_ticks_of_many_symbols_and_steps_in_one_message():
    bench = Bench()
    ticks = [tick(n / 10, 100.0 + n % 5, ("BTC", "ETH", "SOL")[n % 3]) for n in range(1, 1_000)]
    found = steps(bench.ticks(*ticks))
    assert len(found) == 99
    assert all(sum(prices[5] for prices in symbols.values()) == 10 for _, symbols in found)


def ends(sends):
    """Return (end in ns, ticks) of the steps that the first journal partition gets."""
    read = [journal.read(0, send.value) for send in sends if send.topic == "journal" and send.partition == 0]
    return [
        ((body["step"] + 1) * body["step_s"] * SECOND_NS, sum(ohlcvn[5] for ohlcvn in body["symbols"].values()))
        for body in (entry.body for entry in read)
    ]


def test_an_open_step_keeps_its_width_and_the_next_one_has_that_in_force():
    bench = Bench(step_s=10)
    bench.ticks(**tick(0.5))
    bench.step_s = 1
    assert bench.ticks(**tick(3.0)) == []
    assert ends(bench.ticks(**tick(10.5))) == [(START_NS + 10 * SECOND_NS, 2)]
    assert ends(bench.ticks(**tick(11.5))) == [(START_NS + 11 * SECOND_NS, 1)]


def test_the_width_follows_when_nothing_is_open_and_what_is_closed_stays_closed():
    bench = Bench(step_s=10)
    bench.ticks(**tick(0.5))
    bench.fold.elapse(START_NS + 11 * SECOND_NS)
    bench.step_s = 1
    bench.ticks(**tick(9.5))
    bench.ticks(**tick(10.5))
    assert ends(bench.fold.flush()) == [(START_NS + 11 * SECOND_NS, 2)]


@given(
    st.lists(
        st.tuples(st.integers(1, 5_000), st.sampled_from([1, 2, 7, 10, 60]), st.booleans()), min_size=1, max_size=40
    )
)
def test_whatever_widths_come_into_force_no_tick_is_lost_and_ends_only_rise(script):
    bench, second, sends = Bench(), 0.0, []
    for pause_ms, width, elapses in script:
        second += pause_ms / 1000
        sends += bench.ticks(**tick(second))
        bench.step_s = width
        if elapses:
            sends += bench.fold.elapse(START_NS + int(second * SECOND_NS))
    sends += bench.fold.flush()
    found = ends(sends)
    assert sum(count for _, count in found) == len(script)
    assert bench.notes == []
    assert all(before < after for (before, _), (after, _) in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"ticks": []}, None),
        ({"symbol": "BTC", "price": 0.0, "timestamp_ns": START_NS}, "out_of_range"),
        ({"symbol": "BTC", "price": 1.0, "timestamp_ns": START_NS, "low": 2.0}, "inconsistent"),
        (tick(10**7), "in_future"),
        ({"ticks": tick(0.1)}, "wrong_type"),
        ({"ticks": [tick(10**7)]}, "in_future"),
    ],
)
def test_a_bad_message_goes_whole_to_the_dead_letters_and_opens_nothing(body, code):
    bench = Bench()
    (send,) = bench.ticks(**body)
    assert (send.topic, orjson.loads(send.value)) == ("prices.dlq", body)
    headers = dict(send.headers)
    assert headers["__streams.errors.partition"] == b"3"
    assert code is None or headers["himari.error.code"].decode() == code
    assert [note for note in bench.notes if note[0] != "refused_tick"] == [(headers["himari.error.code"].decode(), 1)]
    assert bench.fold.flush() == []
    assert not bench.fold.touched


def test_a_bad_message_leaves_the_open_step_as_it_is():
    bench = Bench()
    bench.ticks(**tick(0.5))
    bench.ticks(symbol="BTC", price=-1.0, timestamp_ns=START_NS)
    assert steps(bench.fold.flush()) == [(step_of(0.5), {"BTC": [100.0, 100.0, 100.0, 100.0, 0.0, 1]})]


drawn = st.lists(
    st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from(("BTC", "ETH")), st.integers(100, 109), st.integers(0, 3)),
        min_size=1,
        max_size=6,
    ),
    max_size=12,
)


def expected(messages):
    """Fold all ticks the slow way: in order, a step is closed once a later one was seen."""
    newest, order, kept, late, seen = -1, [], {}, 0, {}
    for message in messages:
        for tenths, symbol, price, volume in message:
            step = step_of(tenths / 10)
            if step < newest and tenths <= seen.get(symbol, 0):
                late += 1
                continue
            step = max(step, newest)
            seen[symbol] = max(tenths, seen.get(symbol, 0))
            if step > newest:
                newest = step
                order.append(step)
            kept.setdefault((step, symbol), []).append((float(price), float(volume)))
    found = []
    for step in order:
        symbols = {}
        for (of, symbol), rows in kept.items():
            if of == step:
                prices = [price for price, _ in rows]
                traded = sum(volume for _, volume in rows)
                symbols[symbol] = [prices[0], max(prices), min(prices), prices[-1], traded, len(rows)]
        found.append((step, symbols))
    return found, late


@settings(max_examples=100)
@given(drawn, st.integers(0, 12))
def test_the_steps_are_those_of_the_slow_fold_also_after_a_restart(messages, restart):
    bench = Bench()
    sends = []
    for number, message in enumerate(messages):
        if number == restart:
            bench.restart()
        ticks = [tick(tenths / 10, price, symbol, volume=volume) for tenths, symbol, price, volume in message]
        sends += bench.ticks(*ticks)
    sends += bench.fold.flush()
    wanted, late = expected(messages)
    assert steps(sends) == wanted
    assert sum(count for name, count in bench.notes if name == "late_tick") == late


def test_what_a_fold_touched_is_named_with_the_offset_of_its_message():
    bench = Bench()
    bench.ticks(**tick(0.5))
    bench.ticks(**tick(0.6))
    assert bench.fold.touched == {OPEN: 1, LATENESS: 1, (TABLE, b"quote:BTC"): 1}


def test_a_fold_that_has_nothing_to_come_back_to_begins_empty():
    bench = Bench()
    bench.ticks(**tick(0.5))
    bench.fold.restore(None, {})
    assert bench.fold.flush() == []
    assert bench.fold.touched == {}

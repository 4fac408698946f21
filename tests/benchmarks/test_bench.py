"""The benchmarks measure what they say: the rig's inputs lead to the outputs it counts. Nothing here is about speed."""

import asyncio
import time

import orjson
import pytest

from benchmarks import journal, library, portfolios, ticks
from benchmarks.rig import START_NS, entries, ratios, spread
from engines.parameters import DecisionParams
from streams.cli.bench import NAMES, ON_A_BROKER, bench
from streams.journal.genesis import genesis, new_journal_id
from streams.processing.memory_cluster import Stored
from streams.processing.ports import Send
from streams.stages.market import MarketFold
from streams.stages.sizing import SizingFold


def sized(values: list[bytes]) -> list[Send]:
    fold = SizingFold(0)
    journaled = [genesis(new_journal_id(1), 1, DecisionParams(), START_NS), *values]
    return [send for offset, value in enumerate(journaled) for send in fold.fold(Stored(offset, None, value))]


@pytest.mark.parametrize("cells", [1, 5])
def test_every_signal_of_a_course_leads_to_one_allocation_of_the_whole_decision(cells: int) -> None:
    sends = sized(entries(200, portfolios=10, cells=cells))
    allocations = [orjson.loads(send.value or b"") for send in sends if send.topic == "allocations"]
    assert [each["trigger"]["id"] for each in allocations] == [f"s-{number}" for number in range(200)]
    assert {each["portfolio_id"] for each in allocations} == {f"p{number}" for number in range(10)}
    assert {len(each["targets"]) for each in allocations[100:]} == {cells}
    assert any(each["total_allocated_usd"] for each in allocations)
    assert all(each["diagnostics"]["price"] == 100.0 for each in allocations)


@pytest.mark.parametrize("each", [1, 100])
def test_a_hundred_ticks_of_a_course_make_one_step_however_they_are_packed(each: int) -> None:
    market = MarketFold(0, 1, DecisionParams, time.time_ns)
    values = ticks.messages(1_000, each)
    assert len(values) == 1_000 // each
    steps = [send for offset, value in enumerate(values) for send in market.fold(Stored(offset, None, value))]
    assert len(steps) == 1_000 // ticks.TICKS_PER_STEP - 1
    bodies = [orjson.loads(orjson.loads(step.value or b"")["value"]) for step in steps]
    assert {sum(row[5] for row in body["symbols"].values()) for body in bodies} == {ticks.TICKS_PER_STEP}


def test_ratios_are_of_one_run_and_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert ratios([1.0, 4.0], [2.0, 2.0]) == {"median": 1.25, "min": 0.5, "max": 2.0}


def test_a_race_on_the_embedded_broker_counts_every_contestant_to_the_end() -> None:
    report = asyncio.run(journal.run("embedded", quick=True, contestants=("worker", "bare", "forward")))
    rates = {name: rate["median"] for name, rate in report["per_second"].items()}
    assert min(rates.values()) > 0
    assert report["entries"] == {"worker": 2_000, "bare": 2_000, "forward": 6_000}
    for name, over in report["worker_over"].items():
        assert over["median"] == pytest.approx(rates["worker"] / rates[name])


def test_the_parts_of_a_call_lie_within_it() -> None:
    parts = library.run(quick=True)["parts_us"]
    assert min(parts.values()) > 0
    assert parts["fold"] > parts["decide"] > parts["decide: stages 2-3"]
    assert parts["render and hash"] > parts["render: fields"]


def test_the_fold_of_portfolios_is_timed_at_every_point_of_the_curve() -> None:
    assert all(portfolios.fold_us(number, 60) > 0 for number in (1, 10))


def test_every_benchmark_has_a_name_on_the_command_line() -> None:
    names = next(parameter for parameter in bench.params if parameter.name == "names").type.choices  # type: ignore[attr-defined]
    assert tuple(names) == NAMES
    assert set(ON_A_BROKER) < set(NAMES)

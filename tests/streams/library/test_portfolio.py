"""The library's portfolio: several strategies and symbols in one call, one budget, one allocation."""

import csv
from itertools import permutations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, START_NS, SYMBOLS, signal, trusting_file, unit

from schemas.allocation import Allocation
from schemas.errors import InvalidCascadeIndicatorsException, InvalidPriceException, InvalidSignalException
from streams.library.phases import Layer3Phase2Portfolio
from streams.reports.weight_history import WeightRecord

HOUR_NS = 3_600 * 10**9


def layer3(**given_):
    return Layer3Phase2Portfolio(**{"enable_metrics": False, "config": trusting_file(), **given_})


def ask(strategy="momentum", symbol="BTC-USD", **given_):
    return signal(
        given_.pop("now_ns", START_NS), strategy_id=strategy, symbol=symbol, **{"expected_return": 0.004, **given_}
    )


def sized(signals, library=None, cascade=None, prices=PRICES):
    return (library or layer3()).process_multi_strategy_signals(signals, cascade, prices)


def move_together(library, bars=60, symbols=("BTC-USD", "ETH-USD")):
    for bar in range(bars):
        step = 0.01 if bar % 3 else -0.02
        library.update_correlations(dict.fromkeys(symbols, step), START_NS + bar * HOUR_NS)


# -- one allocation for all ------------------------------------------------------------------------------------------
def test_the_answer_is_one_valid_allocation_of_the_whole_portfolio():
    found = sized([ask(), ask("carry", "ETH-USD"), ask("reversion", "SOL-USD", action="sell", expected_return=-0.004)])
    message = Allocation.model_validate_json(found.value)
    assert message.sequence == 1
    assert set(found.allocations) == set(SYMBOLS)
    assert found.allocations["SOL-USD"] < 0 < found.allocations["BTC-USD"]
    assert sum(found.strategy_weights.values()) == pytest.approx(1.0)
    assert found.total_allocated_usd == pytest.approx(sum(map(abs, found.allocations.values())))


def test_two_equal_strategies_on_one_symbol_are_worth_less_than_twice_one():
    alone = sized([ask()]).allocations["BTC-USD"]
    both = sized([ask(), ask("carry")]).allocations["BTC-USD"]
    assert both == pytest.approx(alone * 2 / 1.7, abs=0.02)


def test_coins_that_move_together_share_what_each_would_have_held():
    library = layer3()
    move_together(library)
    now_ns = START_NS + 100 * HOUR_NS
    alone = sized([ask(now_ns=now_ns)], layer3()).allocations["BTC-USD"]
    found = sized([ask(now_ns=now_ns), ask(symbol="ETH-USD", now_ns=now_ns)], library)
    assert found.allocations["BTC-USD"] < 0.7 * alone
    assert found.correlation_penalties["BTC-USD"] == pytest.approx(found.correlation_penalties["ETH-USD"])
    assert found.correlation_penalties["BTC-USD"] > 0.3


def test_signals_that_cancel_leave_nothing_and_say_so():
    found = sized([ask(), ask("carry", action="sell", expected_return=-0.004)])
    assert found.allocations["BTC-USD"] == 0.0
    assert found.diversification is None
    assert b"NaN" not in found.value
    assert b"Infinity" not in found.value


def test_limits_given_to_the_constructor_hold():
    library = layer3(max_position_pct=0.05, max_strategy_pct=0.08)
    found = sized([ask(symbol=symbol, expected_return=0.05) for symbol in SYMBOLS], library)
    assert all(abs(usd) <= 5_000.0 for usd in found.allocations.values())
    assert found.total_allocated_usd <= 8_000.0


def test_a_symbol_without_a_price_is_sized_to_nothing_and_the_others_as_without_it():
    found = sized([ask(), ask("carry", "XRP-USD")])
    assert found.allocations["XRP-USD"] == 0.0
    assert found.allocations["BTC-USD"] == sized([ask()]).allocations["BTC-USD"]


def test_readings_of_several_symbols_cut_each_its_own():
    readings = [
        {"symbol": "BTC-USD", "timestamp_ns": START_NS, "oi_change_pct": -0.5},
        {"symbol": "ETH-USD", "timestamp_ns": START_NS, "oi_change_pct": 0.0},
    ]
    found = sized([ask(), ask(symbol="ETH-USD")], cascade=readings)
    assert abs(found.allocations["BTC-USD"]) < abs(found.allocations["ETH-USD"])


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(("a", "b", "c")), st.sampled_from(SYMBOLS), st.sampled_from(("buy", "sell")), unit),
        min_size=2,
        max_size=4,
        unique_by=lambda row: row[:2],
    )
)
def test_the_order_of_the_signals_changes_nothing(rows):
    asked = [
        ask(
            strategy, symbol, action=action, confidence=confidence, expected_return=0.004 if action == "buy" else -0.004
        )
        for strategy, symbol, action, confidence in rows
    ]
    answers = set()
    for order in permutations(asked):
        fields = orjson.loads(sized(list(order)).value)
        answers.add(orjson.dumps({**fields, "inputs_hash": ""}, option=orjson.OPT_SORT_KEYS))
    assert len(answers) == 1


# -- bad input -------------------------------------------------------------------------------------------------------
def test_a_bad_signal_among_good_ones_leaves_everything_as_it_was():
    library = layer3()
    before = library.get_state()
    with pytest.raises(InvalidSignalException, match="regime must be a known regime or alias, was 'sideways'"):
        sized([ask(), ask("carry", regime="sideways")], library)
    with pytest.raises(InvalidSignalException, match="confidence"):
        sized([ask(), ask("carry", confidence=1.2)], library)
    with pytest.raises(InvalidPriceException, match="price of ETH-USD must be a positive finite number, was nan"):
        sized([ask()], library, prices={"BTC-USD": 43_500.0, "ETH-USD": float("nan")})
    with pytest.raises(InvalidCascadeIndicatorsException):
        sized([ask()], library, cascade={"timestamp_ns": START_NS})
    assert library.get_state() == before


@pytest.mark.parametrize("signals", [[], [ask(portfolio_id="a"), ask(portfolio_id="b")]])
def test_the_signals_of_a_call_are_of_one_portfolio(signals):
    with pytest.raises(InvalidSignalException, match="signals must be of one portfolio"):
        sized(signals)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.1", None])
def test_a_return_that_is_no_number_is_named(value):
    with pytest.raises(InvalidPriceException, match="return of BTC-USD must be a finite log return"):
        layer3().update_correlations({"BTC-USD": value})


# -- what it learns and tells ----------------------------------------------------------------------------------------
def test_outcomes_move_the_weights_and_a_drift_is_told():
    library = layer3()
    for number in range(60):
        now_ns = START_NS + number * HOUR_NS
        names = {"good": 0.05, "bad": -0.05}
        sized([ask(name, signal_id=f"{name}-{number}", now_ns=now_ns) for name in names], library)
        for name, realised in names.items():
            library.record_outcome(
                {
                    "strategy_id": name,
                    "symbol": "BTC-USD",
                    "signal_id": f"{name}-{number}",
                    "side": 1,
                    "realized_return": realised,
                    "holding_s": 60,
                    "timestamp_ns": now_ns + 60 * 10**9,
                }
            )
    found = sized([ask(name, now_ns=START_NS + 100 * HOUR_NS) for name in ("good", "bad")], library)
    assert found.strategy_weights["good"] > 0.6
    assert found.max_drift_pct == pytest.approx(found.drift["ratio"])
    assert found.max_drift_pct > 0.1


def test_the_weight_history_has_a_row_for_each_cell_of_each_decision(tmp_path):
    library = layer3()
    sized([ask("momentum"), ask("carry", "ETH-USD")], library)
    sized([ask("momentum", now_ns=START_NS + 10**9)], library)
    path = tmp_path / "weights.csv"
    assert library.export_weight_history(path) == 4
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == WeightRecord._fields
    assert [row["strategy_id"] for row in rows] == ["carry", "momentum"] * 2
    assert rows[0]["timestamp_iso"] == "2023-11-14T22:13:20+00:00"
    assert {float(row["weight"]) for row in rows} == {0.5}


def test_the_history_keeps_the_last_thousand_decisions(tmp_path):
    library = layer3()
    for number in range(1_005):
        sized([ask(signal_id=f"s-{number}", now_ns=START_NS + number)], library)
    assert library.export_weight_history(tmp_path / "weights.csv") == 1_000

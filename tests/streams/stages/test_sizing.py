"""The main job on the Driver: what a signal, a cascade, an expiry and an operator lead to."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from worlds import control, last, play, priced, scripts, signal, targets, tick

from schemas.allocation import Allocation


def test_a_signal_is_sized_and_held_to_the_position_cap():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns))
    driver.run()
    found = last(driver)
    assert targets(found) == {"BTC-USD": 13_500.0}
    assert found["trigger"] == {"id": "signals-0-0-0", "kind": "signal"}


def test_a_signal_without_a_price_gets_a_zero_and_the_reason():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, symbol="XRP-USD"))
    driver.run()
    found = last(driver)
    assert found["position_size_usd"] == 0.0
    assert found["waterfall"][0]["reason"] == "no price"


def test_a_stale_price_gives_a_zero_and_the_reason():
    driver = priced()
    driver.advance(200.0)
    driver.publish("signals", signal(driver.now_ns))
    driver.run()
    assert last(driver)["waterfall"][0]["reason"] == "stale price"


def test_a_sell_is_a_negative_target():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, action="sell", expected_return=-0.01))
    driver.run()
    assert targets(last(driver)) == {"BTC-USD": -13_500.0}


def test_an_expired_forecast_closes_its_position():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, valid_for_s=60))
    driver.advance(61.0)
    driver.advance(2.0)
    found = last(driver)
    assert found["trigger"]["kind"] == "expiry"
    assert targets(found) == {"BTC-USD": 0.0}


def test_a_halt_sets_targets_to_zero_and_a_resume_sizes_again():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(1.0)
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "symbol:BTC-USD", "state": "HALTED"}))
    driver.run()
    assert targets(last(driver)) == {"BTC-USD": 0.0}
    driver.publish("signals", signal(driver.now_ns, strategy_id="momentum"))
    driver.run()
    assert last(driver)["waterfall"][0]["reason"] == "halted"
    resume = {"scope": "symbol:BTC-USD", "state": "ACTIVE"}
    driver.publish("control", control(driver.now_ns, "trading_state", resume, "c-2"))
    driver.run()
    assert targets(last(driver)) == {"BTC-USD": 13_500.0}


def _level(driver, whale: float) -> None:
    readings = {
        "symbol": "BTC-USD",
        "timestamp_ns": driver.now_ns,
        "onchain_whale_pressure": whale,
        "oi_change_pct": -whale,
    }
    driver.publish("cascade-indicators", readings)
    driver.run()


def test_a_cascade_cuts_once_and_the_next_signal_brings_it_back_only_when_it_is_over():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400))
    driver.advance(1.0)
    before = targets(last(driver))["BTC-USD"]
    _level(driver, 1.0)
    cut = targets(last(driver))["BTC-USD"]
    assert last(driver)["trigger"]["kind"] == "cascade"
    assert cut <= before / 2
    count = len(driver.allocations())
    _level(driver, 1.0)
    driver.advance(5.0)
    assert len(driver.allocations()) == count, "a cut that is in force is not taken again"


def test_an_unknown_regime_goes_to_the_dead_letters_of_its_topic_as_it_came():
    driver = priced()
    raw = orjson.dumps(signal(driver.now_ns, regime="sideways"))
    driver.publish("signals", raw)
    driver.run()
    (letter,) = driver.read("signals.dlq")
    assert letter.value == raw
    assert dict(letter.headers)["himari.error.field"] == b"regime"
    assert b"sideways" in dict(letter.headers)["__streams.errors.message"]


def test_an_outcome_that_settles_no_claim_goes_to_the_dead_letters():
    driver = priced()
    outcome = {
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "signal_id": "never",
        "side": 1,
        "realized_return": 0.01,
        "timestamp_ns": driver.now_ns,
    }
    driver.publish("outcomes", outcome)
    driver.run()
    assert len(driver.read("outcomes.dlq")) == 1


def test_outcomes_move_the_size():
    driver = priced()
    for number in range(60):
        driver.publish("signals", signal(driver.now_ns, signal_id=f"s-{number}", expected_return=0.004))
        driver.advance(1.0)
        outcome = {
            "strategy_id": "momentum",
            "symbol": "BTC-USD",
            "signal_id": f"s-{number}",
            "side": 1,
            "realized_return": -0.01,
            "holding_s": 1,
            "timestamp_ns": driver.now_ns,
        }
        driver.publish("outcomes", outcome)
        driver.publish("prices", tick(driver.now_ns), key=b"BTC-USD")
        driver.advance(1.0)
    first, final = driver.allocations()[0], last(driver)
    assert first["kelly_position_usd"] > 0
    assert final["kelly_position_usd"] == 0.0
    assert final["diagnostics"]["kelly"]["calibration"] < first["diagnostics"]["kelly"]["calibration"]


def test_every_allocation_is_the_message_that_its_schema_promises():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(4000.0)
    for record in driver.read("allocations"):
        message = Allocation.model_validate_json(record.value)
        assert orjson.dumps(message.model_dump(exclude_unset=True), option=orjson.OPT_SORT_KEYS) == record.value


@settings(max_examples=60)
@given(scripts)
def test_whatever_comes_the_books_stay_whole(script):
    driver = priced()
    play(driver, script)
    sequences: dict[str, int] = {}
    for fields in driver.allocations():
        portfolio = fields["portfolio_id"]
        sequences[portfolio] = sequences.get(portfolio, 0) + 1
        _steps_add_up(fields)
        _no_cap_is_broken(fields)
        _nothing_grows_after_the_regime(fields)
        _the_portfolio_is_told_in_ratios(fields)
    for portfolio, count in sequences.items():
        assert sorted(f["sequence"] for f in driver.allocations(portfolio)) == list(range(1, count + 1))
    assert not driver.read("signals.dlq")


def _steps_add_up(fields):
    last = fields["portfolio_waterfall"][-1]
    cells = {(cell["strategy_id"], cell["symbol"]): cell["cents"] for cell in fields["cells"]}
    assert last["gross_cents"] == round(fields["totals"]["gross_usd"] * 100) == sum(map(abs, cells.values()))
    assert last["net_cents"] == sum(cells.values())
    rows = fields["waterfall"]
    if rows:
        assert rows[0]["before_cents"] == 0
        assert all(above["after_cents"] == row["before_cents"] for above, row in pairwise(rows))
        assert rows[-1]["after_cents"] == cells.get((fields["strategy_id"], fields["symbol"]), 0)


def _the_portfolio_is_told_in_ratios(fields):
    weights = fields["strategy_weights"]
    assert not weights or sum(weights.values()) == pytest.approx(1.0)
    assert all(0.0 < weight <= 1.0 for weight in weights.values())
    assert all(0.0 <= taken <= 1.0 for taken in fields["correlation_penalties"].values())
    assert 0.0 <= fields["max_drift_pct"] <= 1.0
    assert 0.0 <= fields["drift"]["ratio"] <= 1.0
    if fields["trigger"]["kind"] == "signal" and fields["diversification"] is not None:
        assert fields["diversification"]["ratio"] > 0.0
    strategies = {cell["strategy_id"] for cell in fields["cells"]}
    gross = {name: sum(abs(c["cents"]) for c in fields["cells"] if c["strategy_id"] == name) for name in strategies}
    assert all(size <= 0.4 * 100 * fields["portfolio_value"] + 1 for size in gross.values())


def _no_cap_is_broken(fields):
    value = fields["portfolio_value"]
    assert fields["totals"]["gross_usd"] <= 0.8 * value + 1e-6
    for target in fields["targets"].values():
        assert abs(target["notional_usd"]) <= 0.15 * value + 1e-6
        assert target["notional_usd"] * target["quantity"] >= 0


def _nothing_grows_after_the_regime(fields):
    rows = fields["waterfall"]
    names = [row["stage"] for row in rows]
    for row in rows:
        if row["stage"] in {"conformal", "cascade", "drawdown", "ensemble", "portfolio", "caps", "limits", "cut"}:
            assert abs(row["after_cents"]) <= abs(row["before_cents"]), row
            assert row["after_cents"] * row["before_cents"] >= 0
    assert names in ([], ["held", "cut", "caps", "limits", "band", "lots"]) or names[0] == "kelly"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_strategies_names_changes_nothing_of_the_caps(order):
    driver = priced()
    names = ("a", "b", "c")
    for index in order:
        driver.publish("signals", signal(driver.now_ns, strategy_id=names[index], signal_id=f"s-{index}"))
    driver.run()
    assert targets(last(driver)) == {"BTC-USD": pytest.approx(13_500.0, abs=0.05)}

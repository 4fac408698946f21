"""`himari portfolio show`: what it says is what the allocation and the state say, worked out here another way."""

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from worlds import PRICES, SECOND_NS, SYMBOLS, Driver, control, last, play, priced, scripts, signal, tick

from engines.parameters import DecisionParams
from engines.pipeline import cache
from streams.reports.portfolio import budgets, render, view


def held(partitions=2, **risk) -> Driver:
    """Two strategies on three symbols."""
    params = DecisionParams(risk_management=risk) if risk else DecisionParams()
    driver = priced(Driver(params, partitions=partitions))
    for number in range(6):
        name = ("momentum", "carry")[number % 2]
        given_ = {"strategy_id": name, "symbol": SYMBOLS[number % 3], "signal_id": f"s-{number}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=3_600, **given_))
        driver.advance(1.0)
    return driver


def correlated() -> Driver:
    """Two symbols that a hundred minutes have seen move together."""
    driver = priced(Driver(DecisionParams(market={"bar_s": 60}), partitions=1))
    prices = {symbol: PRICES[symbol] for symbol in SYMBOLS[:2]}
    for minute in range(100):
        together = 0.01 if minute * 7_919 % 11 < 5 else -0.01
        for own, symbol in enumerate(prices):
            prices[symbol] *= 1 + together + (0.004 if (minute + own) % 3 else -0.004)
            driver.publish("prices", tick(driver.now_ns, symbol, prices[symbol]))
        driver.advance(60.0)
    for symbol in prices:
        driver.publish("signals", signal(driver.now_ns, symbol=symbol, signal_id=symbol))
        driver.advance(1.0)
    return driver


def shown(driver: Driver, portfolio="main", later_s=0.0, **changed):
    fields = {**last(driver, portfolio), **changed}
    state = driver.processors["journal", fields["journal"]["partition"]][0].state
    return view(fields, state, driver.now_ns + int(later_s * SECOND_NS))


def order(driver: Driver, kind, payload, control_id="c-1"):
    driver.publish("control", control(driver.now_ns, kind, payload, control_id))
    driver.advance(1.0)


def test_a_portfolio_is_shown_as_its_newest_allocation_says():
    driver = held()
    newest, found = last(driver), shown(driver)
    assert (found["sequence"], found["value_usd"]) == (newest["sequence"], 100_000.0)
    assert found["targets"] == newest["targets"]
    assert {name: each["weight"] for name, each in found["strategies"].items()} == newest["strategy_weights"]
    assert {name: each["weight_now"] for name, each in found["strategies"].items()} == newest["strategy_weights"]
    gross = sum(each["gross_usd"] for each in found["strategies"].values())
    assert gross == pytest.approx(newest["total_allocated_usd"])
    assert found["settings"] == {"hash": newest["settings_hash"], "in_force": True}
    assert found["absent"] == []
    assert set(found["trading_states"].values()) == {"ACTIVE"}
    assert orjson.loads(orjson.dumps(found)) == found


def test_cells_are_shown_under_their_strategy():
    driver = held()
    newest, found = last(driver), shown(driver)
    assert found["cells"] == newest["cells"]
    lines = list(render(found))
    begin, end = lines.index("strategies (drift 0.0%):"), lines.index("budgets:")
    words = [line.split() for line in lines[begin + 1 : end] if line.startswith("  ")]
    names = {cell["strategy_id"] for cell in newest["cells"]}
    strategy, cells = "", {}
    for name, amount, *_ in words:
        strategy = name if name in names else strategy
        if name not in names:
            cells[strategy, name] = round(100 * float(amount.replace(",", "")))
    assert cells == {(cell["strategy_id"], cell["symbol"]): cell["cents"] for cell in newest["cells"]}
    assert len(cells) > 2


def test_what_correlation_took_and_what_diversification_is_worth_are_shown():
    driver = correlated()
    newest, found = last(driver), shown(driver)
    assert found["correlation_penalties"] == newest["correlation_penalties"]
    assert found["diversification"] == newest["diversification"]
    assert min(newest["correlation_penalties"].values()) > 0.1
    text = "\n".join(render(found))
    for symbol, share in newest["correlation_penalties"].items():
        assert f"{symbol} {100 * share:.1f}%" in text.partition(" removed: ")[2].splitlines()[0]
    ratio, score = newest["diversification"]["ratio"], newest["diversification"]["score"]
    assert f"diversification: ratio {ratio:.2f}, score {score:.2f}" in text
    assert score == pytest.approx(ratio * ratio / 2)


def test_where_nothing_was_taken_and_no_volatility_is_known_it_is_not_made_up():
    text = "\n".join(render(shown(held(), correlation_penalties={"BTC-USD": 0.0}, diversification=None)))
    assert "removed: nothing" in text
    assert "diversification" not in text


def test_budgets_are_those_of_the_settings_in_force():
    found = shown(held(max_position_pct=0.05, max_strategy_allocation=0.10, max_portfolio_allocation=0.12))["budgets"]
    assert {row["cap_usd"] for row in found["position"]} == {5_000.0}
    assert {row["cap_usd"] for row in found["strategy"]} == {10_000.0}
    (whole,) = found["portfolio"]
    assert (whole["cap_usd"], whole["name"]) == (12_000.0, "all")
    assert 0.97 < whole["ratio"] <= 1.0, "the portfolio's cap binds, but for what is cut to whole cents and the band"


def test_a_budget_by_hand():
    cells = [
        {"strategy_id": "a", "symbol": "BTC", "cents": 300_000},
        {"strategy_id": "b", "symbol": "BTC", "cents": -100_000},
        {"strategy_id": "b", "symbol": "ETH", "cents": -200_000},
    ]
    driver = held()
    limits = cache.limits(driver.processors["journal", 0][0].state)
    found = budgets({"cells": cells, "portfolio_value": 20_000.0}, limits)
    assert [(row["name"], row["held_usd"], row["cap_usd"]) for row in found["position"]] == [
        ("BTC", 4_000.0, 3_000.0),
        ("ETH", 2_000.0, 3_000.0),
    ]
    assert [(row["name"], row["held_usd"], row["ratio"]) for row in found["strategy"]] == [
        ("a", 3_000.0, pytest.approx(0.375)),
        ("b", 3_000.0, pytest.approx(0.375)),
    ]
    assert found["portfolio"][0]["ratio"] == pytest.approx(6_000 / 16_000)
    assert budgets({"cells": cells, "portfolio_value": 0.0}, limits)["portfolio"][0]["ratio"] is None


@hypothesis_settings(max_examples=25)
@given(scripts)
def test_whatever_happened_no_budget_is_over_full_and_the_sums_agree(script):
    driver = Driver(partitions=1)
    play(driver, script)
    for portfolio in {fields["portfolio_id"] for fields in driver.allocations()}:
        found, newest = shown(driver, portfolio), last(driver, portfolio)
        rows = found["budgets"]
        gross = sum(abs(cell["cents"]) for cell in newest["cells"]) / 100
        for level in rows.values():
            assert sum(row["held_usd"] for row in level) == pytest.approx(gross, abs=0.01)
        if newest["basis"] == "targets" and newest["trigger"]["kind"] == "signal":
            assert all(row["ratio"] is None or row["ratio"] <= 1 + 1e-9 for level in rows.values() for row in level)
        assert "\n".join(render(found)).startswith(f"{portfolio}, allocation {newest['sequence']} ")


def test_trading_states_are_those_of_now_and_not_of_the_allocation():
    driver = held()
    order(driver, "trading_state", {"scope": "strategy:carry", "state": "REDUCING"})
    order(driver, "trading_state", {"scope": "symbol:ETH-USD", "state": "HALTED"}, "c-2")
    found = shown(driver)["trading_states"]
    assert found == {
        "carry/BTC-USD": "REDUCING",
        "carry/ETH-USD": "HALTED",
        "carry/SOL-USD": "REDUCING",
        "momentum/BTC-USD": "ACTIVE",
        "momentum/ETH-USD": "HALTED",
        "momentum/SOL-USD": "ACTIVE",
    }
    assert "carry/ETH-USD HALTED" in "\n".join(render(shown(driver)))


def test_what_has_grown_old_is_said():
    driver = held()
    fresh, old = shown(driver), shown(driver, later_s=7_200.0)
    assert (fresh["freshness"]["expired"], fresh["freshness"]["stale_prices"]) == (False, [])
    assert old["freshness"]["expired"]
    assert old["freshness"]["stale_prices"] == sorted(old["targets"])
    assert old["freshness"]["decision_age_s"] == pytest.approx(fresh["freshness"]["decision_age_s"] + 7_200)
    text = "\n".join(render(old))
    assert ("EXPIRED" in text, "price 2 h old, STALE" in text, "(2 h ago)" in text) == (True, True, True)
    assert "STALE" not in "\n".join(render(fresh))


def test_budgets_of_settings_that_are_not_in_force_are_not_made_up():
    found = shown(held(), settings_hash="0" * 64)
    assert (found["budgets"], found["settings"]["in_force"]) == (None, False)
    assert "budgets: unknown, settings have changed since" in list(render(found))


def test_an_allocation_of_decision_version_1_is_shown_as_far_as_it_tells():
    driver = held()
    new = (
        "cells",
        "strategy_weights",
        "drift",
        "drifted_strategies",
        "max_drift_pct",
        "correlation_penalties",
        "diversification",
    )
    fields = {key: value for key, value in last(driver).items() if key not in new}
    state = driver.processors["journal", fields["journal"]["partition"]][0].state
    found = view(fields, state, driver.now_ns)
    assert tuple(found["absent"]) == new
    assert (found["strategies"], found["budgets"], found["drift"]) == (None, None, None)
    assert (found["cells"], found["correlation_penalties"], found["diversification"]) == (None, None, None)
    assert "budgets: unknown, no cells in this allocation" in list(render(found))
    assert "correlation" not in "\n".join(render(found))


def test_a_portfolio_that_holds_nothing_says_so():
    driver = held()
    order(driver, "trading_state", {"scope": "all", "state": "HALTED"})
    found = shown(driver)
    assert found["budgets"] == {
        "position": [],
        "strategy": [],
        "portfolio": [{"cap_usd": 80_000.0, "held_usd": 0.0, "name": "all", "ratio": 0.0}],
    }
    assert {target["notional_usd"] for target in found["targets"].values()} == {0.0}
    weights = [(each["weight"], each["weight_now"]) for each in found["strategies"].values()]
    assert weights == [(None, 0.5), (None, 0.5)], "decided by ratio, it has no weights of its own"
    assert "targets: nothing is held" in list(render(shown(driver, targets={})))

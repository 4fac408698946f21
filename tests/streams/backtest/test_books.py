"""Accounts, their split between strategies, and the simple sizings beside: by hand, and sums that must hold."""

import random

import pytest
from markets import START_NS, said, settings, walk

from engines.parameters import DecisionParams
from schemas.signal import TacticalSignal
from streams.backtest.account import Account, Fill
from streams.backtest.attribution import Attribution
from streams.backtest.broker import Trading
from streams.backtest.execute import execute
from streams.backtest.request import Request
from streams.backtest.rivals import Rival, capped

HOUR_S = 3_600


def test_a_fill_pays_fee_and_slippage_on_its_notional():
    account = Account(1_000.0, {"BTC-USD": 100.0}, 0.001, 0.002)
    account.aim(1, "signal", {"BTC-USD": 2.0}, (), 0.0)
    assert account.fill("BTC-USD") == Fill("BTC-USD", 2.0, 100.0, pytest.approx(0.2), pytest.approx(0.4))
    assert account.cash == pytest.approx(1_000.0 - 200.0 - 0.6)
    assert account.equity == pytest.approx(999.4)
    account.prices["BTC-USD"] = 110.0
    assert account.fund("BTC-USD", 0.01) == pytest.approx(2.2)
    account.aim(2, "signal", {}, (), 0.0)
    account.fill("BTC-USD")
    assert account.held == {}
    assert account.equity == pytest.approx(1_000.0 + 20.0 - 0.6 - 2.2 - 220.0 * 0.003)


# -- attribution -------------------------------------------------------------------------------------------------------
def test_a_position_is_split_as_its_target_is_and_costs_by_what_changes():
    prices = {"X": 10.0}
    found = Attribution(prices)
    found.take("main", [("a", "X"), ("b", "X")], [3_000, 1_000])
    found.fill("main", Fill("X", 4.0, 10.0, 0.4, 0.0), 4.0)
    found.take("main", [("a", "X"), ("b", "X")], [0, 1_000])
    found.fill("main", Fill("X", -3.0, 12.0, 0.36, 0.0), 1.0)
    prices["X"] = 15.0
    a, b = found.results()
    assert (a.strategy_id, a.trades, b.trades) == ("a", 2, 1)
    assert a.profit_usd == pytest.approx(3.0 * 2.0 - 0.3 - 0.36)
    assert b.profit_usd == pytest.approx(1.0 * 5.0 - 0.1)


def test_the_parts_sum_to_the_whole_on_a_market():
    candles = [walk("BTC-USD", 150, 1), walk("ETH-USD", 150, 2)]
    chance = random.Random(3)
    signals = [
        said(
            hour,
            chance.choice(["BTC-USD", "ETH-USD"]),
            strategy_id=name,
            portfolio_id=portfolio,
            action=chance.choice(["buy", "sell"]),
        )
        for hour in range(2, 140)
        for name, portfolio in (("a", "main"), ("b", "main"), ("c", "other"))
    ]
    result = execute(Request(candles, settings(), signals=signals, fee_ratio=0.001, slippage_ratio=0.0005), check=False)
    run, figures = result.run, result.figures
    profit = run.curve.profit[-1]
    assert len(run.broker.trades) > 30
    assert figures["portfolios"] == ["main", "other"]
    assert figures["result"]["final_usd"] == pytest.approx(200_000.0 + profit)
    for name in ("by_strategy", "by_symbol"):
        rows = figures[name]
        assert sum(row["profit_usd"] for row in rows) == pytest.approx(profit)
        assert sum(row["costs_usd"] for row in rows) == pytest.approx(run.curve.costs[-1])
    assert sum(column[-1] for column in run.curve.earned.values()) == pytest.approx(profit)
    fills = sum(abs(trade.quantity) * trade.price for trade in run.broker.trades)
    assert run.curve.traded[-1] == pytest.approx(fills)
    assert run.curve.costs[-1] == pytest.approx(0.0015 * fills)
    twice = figures["result"]["at_twice_the_costs"]
    assert twice["final_usd"] == pytest.approx(200_000.0 + profit - 0.0015 * fills)


# -- rivals ------------------------------------------------------------------------------------------------------------
def test_caps_hold_for_cells_symbols_strategies_and_the_whole():
    params = DecisionParams()
    assert capped({("a", "X"): 0.05}, params) == pytest.approx({"X": 0.05})
    assert capped({("a", "X"): -6.0}, params) == pytest.approx({"X": -0.15})
    assert capped({("a", name): 6.0 for name in "WXYZ"}, params) == pytest.approx(dict.fromkeys("WXYZ", 0.1))
    many = capped({(strategy, f"{strategy}{name}"): 6.0 for strategy in "abc" for name in "WXYZ"}, params)
    assert sum(many.values()) == pytest.approx(0.8)
    long_only = DecisionParams.model_validate({"risk_management": {"allow_short": False}})
    assert capped({("a", "X"): -6.0}, long_only) == {"X": 0.0}


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("fixed fraction", 0.05),
        ("volatility target", 0.10 / (0.03 * (365.25 * 24 / 6.0) ** 0.5)),
        ("full Kelly", 0.15),
    ],
)
def test_a_rival_sizes_a_claim_until_it_expires(name, weight):
    prices = {"BTC-USD": 100.0}
    rival = Rival(name, DecisionParams(), Trading(0.0, 0.0), prices)
    message = TacticalSignal.model_validate(said(0, timestamp_ns=START_NS, valid_for_s=7_200.0))
    rival.signal(message)
    rival.aim(START_NS)
    rival.fill([("BTC-USD", 100.0)], START_NS / 1e9 + 2)
    assert rival.accounts["main"].held == {"BTC-USD": pytest.approx(weight * 100_000.0 / 100.0)}
    prices["BTC-USD"] = 103.0
    rival.signal(message)
    rival.aim(START_NS + 1)
    assert rival.accounts["main"].orders == {}, "3 % are within the band"
    rival.aim(START_NS + 7_200 * 10**9)
    rival.fill([("BTC-USD", 103.0)], START_NS / 1e9 + 7_202)
    rival.record()
    assert rival.accounts["main"].held == {}
    assert rival.profit[-1] == pytest.approx(weight * 100_000.0 * 0.03)

"""Ablation: what is switched off does nothing, and the gain is the difference of two runs."""

import numpy as np
import pytest
from markets import said, settings, walk

from engines.parameters import DecisionParams
from streams.backtest import statistics
from streams.backtest.ablation import WITHOUT, without
from streams.backtest.execute import execute
from streams.backtest.request import Request

HOURS = 24 * 65
CANDLES = [walk("BTC-USD", HOURS, 1)]
SIGNALS = [
    said(hour, risk_score=0.8, regime="high_volatility", expected_return=0.004) for hour in range(2, HOURS - 20, 9)
]


@pytest.mark.parametrize("stage", WITHOUT)
def test_the_settings_of_each_ablation_are_valid_and_differ(stage):
    assert without(DecisionParams(), stage) != DecisionParams()


def test_the_gain_of_a_stage_is_the_difference_of_two_backtests():
    result = execute(Request(CANDLES, settings(), signals=SIGNALS), check=False, ablation=True)
    rows = {each["stage"]: each for each in result.figures["stages"]}
    assert list(rows) == list(WITHOUT)
    for stage, changed in (
        ("risk score", {"risk_score_weight": 0.0}),
        ("no-trade band", {"band_ratio": 0.0}),
    ):
        kelly = settings().position_sizing.bayesian_kelly.model_dump()
        other = settings(position_sizing={"bayesian_kelly": kelly, **changed})
        found = execute(Request(CANDLES, other, signals=SIGNALS), check=False).figures["result"]
        assert rows[stage]["gain"] == pytest.approx(result.figures["result"]["return"] - found["return"])
        assert rows[stage]["costs_usd"] == pytest.approx(found["costs_usd"])
        assert rows[stage]["turnover"] == pytest.approx(found["turnover"])
    low, high = rows["regime"]["interval"]
    assert low < high
    assert rows["regime"]["costs_usd"] > 1.5 * result.figures["result"]["costs_usd"], (
        "0.6 of the size in high volatility"
    )
    assert "What each stage earned or cost" in result.to_html()


def test_the_interval_of_a_sum_is_as_wide_as_theory_says():
    differences = np.random.default_rng(2).normal(0.001, 0.01, 900)
    low, high = statistics.total_interval(differences)
    assert low < differences.sum() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.01 * 900**0.5, rel=0.15)
    assert statistics.total_interval(np.zeros(900)) is None
    assert statistics.total_interval(differences[:20]) is None

"""What each stage earned or cost: the same backtest once more without it, compared day by day."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from engines.parameters import DecisionParams
from streams.backtest import statistics
from streams.backtest.figures import capital_of
from streams.backtest.run import Backtest, Inputs, Run
from streams.backtest.statistics import Floats, Interval

KELLY: Final = "position_sizing.bayesian_kelly"
NEUTRAL: Final = dict.fromkeys(("trending_up", "trending_down", "ranging", "high_volatility", "crisis"), 1.0)

WITHOUT: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "learning": {
            f"{KELLY}.prior_calibration": 1.0,
            f"{KELLY}.prior_strength": 1e12,
            f"{KELLY}.max_prior_weight": 1e12,
            f"{KELLY}.guard_sd": 1e12,
            f"{KELLY}.estimation_shrink": False,
        },
        "conformal": {"position_sizing.conformal_prediction.max_inflation": 1.0},
        "risk score": {"position_sizing.risk_score_weight": 0.0},
        "regime": {"position_sizing.regime_adjustment.multipliers": NEUTRAL},
        "cascade": {
            "risk_management.cascade_levels.reduce_50": 0.9997,
            "risk_management.cascade_levels.reduce_75": 0.9998,
            "risk_management.cascade_levels.exit": 0.9999,
        },
        "drawdown": {"risk_management.max_drawdown_pct": 0.9999},
        "no-trade band": {"position_sizing.band_ratio": 0.0},
    }
)
"""Stage → settings, by dotted key, with which it does nothing: claims taken at their word, no inflation, and so on."""


class Ablated(NamedTuple):
    """A backtest without one stage. Ratios of the initial value."""

    stage: str
    gain: float
    """Return with the stage minus return without it."""
    interval: Interval | None
    """Of the gain, 95 %; None: too few days, or it changed nothing."""
    drawdown: float
    """Largest drawdown without it."""
    turnover: float
    costs_usd: float


def without(params: DecisionParams, stage: str) -> DecisionParams:
    """Return settings with which a stage does nothing."""
    tree = params.model_dump()
    for key, value in WITHOUT[stage].items():
        *path, name = key.split(".")
        section = tree
        for part in path:
            section = section[part]
        section[name] = value
    return DecisionParams.model_validate(tree)


def ablated(stage: str, inputs: Inputs, run: Run, on_progress: Callable[[int], None] = lambda _: None) -> Ablated:
    """Run a backtest without a stage, and compare it with the one that has it."""
    changed = inputs._replace(params=without(inputs.params, stage), compared=False)
    found = Backtest(changed, on_progress=on_progress).run()
    capital = capital_of(run)
    difference = _daily(run, capital) - _daily(found, capital)
    return Ablated(
        stage,
        (run.curve.profit[-1] - found.curve.profit[-1]) / capital,
        _interval(difference),
        statistics.drawdown(_daily(found, capital)),
        found.curve.traded[-1] / capital,
        found.curve.costs[-1],
    )


def _daily(run: Run, capital: float) -> Floats:
    _, last = run.curve.days()
    return statistics.daily(capital + run.curve.column("profit")[last], capital)


def _interval(difference: Floats) -> Interval | None:
    try:
        return statistics.total_interval(difference)
    except ImportError:
        return None

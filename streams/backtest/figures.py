"""The numbers of a backtest: those of the report, of `--json` and of the library, computed in one place."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.vocabulary import RECOMMENDATIONS
from streams.backtest import cascades, statistics
from streams.backtest.run import Run
from streams.reports.weight_history import instant

Floats = NDArray[np.float64]
EPOCH: Final = date(1970, 1, 1)
DAY_NS: Final = 86_400 * 10**9
SHUFFLE_DAYS: Final = 5
BLOCKS_MIN: Final = 20


def capital_of(run: Run) -> float:
    """Return the value of all portfolios at the start, USD."""
    return run.broker.initial_usd * max(1, len(run.broker.accounts))


def summary(run: Run, trials: int) -> dict[str, Any]:
    """Return the figures of a run; `trials`: how many variants were tried before this one, itself included."""
    capital = capital_of(run)
    curve = run.curve
    _, last = curve.days()
    profit, costs = curve.column("profit"), curve.column("costs")
    daily = statistics.daily(capital + profit[last], capital)
    return {
        "period": {
            "from": _iso(curve.time_ns[0]),
            "to": _iso(curve.time_ns[-1]),
            "bars": len(curve.time_ns),
            "days": len(last),
        },
        "portfolios": sorted(run.broker.accounts),
        "result": {
            "initial_usd": capital,
            **_performance(capital, profit, costs, curve.column("gross"), daily),
            "turnover": curve.traded[-1] / capital,
            "funding_usd": curve.funding[-1],
            "trades": len(run.broker.trades),
            "at_twice_the_costs": _performance(
                capital,
                profit - costs,
                2.0 * costs,
                curve.column("gross"),
                statistics.daily(capital + (profit - costs)[last], capital),
            ),
        },
        "compared": list(_compared(run, capital, daily, last)),
        "by_strategy": _grouped(run, "strategy_id", capital),
        "by_symbol": _grouped(run, "symbol", capital),
        "calendar": _calendar(run, capital),
        "cascades": [each.report() for each in cascades.days(run, capital)],
        "cuts": _cuts(run),
        "statistics": _statistics(run, capital, daily, trials),
        "claims": _claims(run),
        "caps": _caps(run),
        "zero_sized": dict(sorted(run.decisions.reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def _performance(capital: float, profit: Floats, costs: Floats, gross: Floats, daily: Floats) -> dict[str, Any]:
    equity = capital + profit
    found = statistics.moments(daily)
    deep, long = _underwater(equity, capital)
    years = len(daily) / statistics.DAYS_A_YEAR
    growth = float(equity[-1] / capital)
    return {
        "final_usd": float(equity[-1]),
        "return": growth - 1.0,
        "return_a_year": growth ** (1.0 / years) - 1.0 if growth > 0 and years >= 1.0 else None,
        "volatility_a_year": None if found is None else found.sd * statistics.DAYS_A_YEAR**0.5,
        "sharpe_a_year": None if found is None else found.sharpe * statistics.DAYS_A_YEAR**0.5,
        "max_drawdown": deep,
        "longest_drawdown_bars": long,
        "costs_usd": float(costs[-1]),
        "exposure_mean": float(np.mean(gross / np.maximum(equity, 1e-9))),
        "exposure_max": float(np.max(gross / np.maximum(equity, 1e-9))),
    }


def _underwater(equity: Floats, capital: float) -> tuple[float, int]:
    """Return the deepest fall from a peak as a share of it, and the longest time below a peak in bars."""
    values = np.concatenate([[capital], equity])
    peak = np.maximum.accumulate(values)
    at_peak = np.flatnonzero(values >= peak)
    longest = int(np.max(np.diff(np.append(at_peak, len(values))))) - 1
    return float(np.max((peak - values) / peak)), longest


def _compared(run: Run, capital: float, daily: Floats, last: NDArray[np.intp]) -> Iterator[dict[str, Any]]:
    """Yield the same signals under each sizing, ours first."""
    curve = run.curve
    ours = _performance(capital, curve.column("profit"), curve.column("costs"), curve.column("gross"), daily)
    yield {"name": "HIMARI", **ours, "turnover": curve.traded[-1] / capital}
    for rival in run.rivals:
        profit, costs, gross = (np.array(each) for each in (rival.profit, rival.costs, rival.gross))
        own = statistics.daily(capital + profit[last], capital)
        figures = _performance(capital, profit, costs, gross, own)
        yield {"name": rival.name, **figures, "turnover": rival.traded_usd / capital}


def _grouped(run: Run, name: str, capital: float) -> list[dict[str, Any]]:
    """Return profit, costs and trades of each strategy or symbol, sorted by name."""
    groups: dict[str, dict[str, Any]] = {}
    for cell in run.broker.attribution.results():
        row = groups.setdefault(
            getattr(cell, name),
            {"profit_usd": 0.0, "costs_usd": 0.0, "funding_usd": 0.0, "traded_usd": 0.0, "trades": 0},
        )
        for field in row:
            row[field] += getattr(cell, field)
    return [
        {"name": key, **row, "return": row["profit_usd"] / capital, "turnover": row["traded_usd"] / capital}
        for key, row in sorted(groups.items())
    ]


def _calendar(run: Run, capital: float) -> list[dict[str, Any]]:
    """Return the return of each month that has a candle."""
    days, last = run.curve.days()
    equity = capital + run.curve.column("profit")
    found: list[dict[str, Any]] = []
    base = capital
    for place, (day, index) in enumerate(zip(days.tolist(), last.tolist(), strict=True)):
        at = EPOCH + timedelta(days=day)
        after = EPOCH + timedelta(days=int(days[place + 1])) if place + 1 < len(days) else None
        if after is None or (after.year, after.month) != (at.year, at.month):
            value = float(equity[index])
            found.append({"year": at.year, "month": at.month, "return": value / base - 1.0 if base > 0 else None})
            base = value
    return found


def _cuts(run: Run) -> dict[str, int]:
    """Return how often each cascade level came into force, on any symbol and side."""
    counts: dict[str, int] = dict.fromkeys(RECOMMENDATIONS[1:], 0)
    for _, _, _, level, _ in run.cascades.changes:
        if level in counts:
            counts[level] += 1
    return counts


# -- statistics --------------------------------------------------------------------------------------------------------
def _statistics(run: Run, capital: float, daily: Floats, trials: int) -> dict[str, Any]:
    found = statistics.moments(daily)
    test = _shuffle(run, capital)
    figures: dict[str, Any] = {
        "days": len(daily),
        "trials": trials,
        "sharpe_a_year": None,
        "sharpe_interval": None,
        "probabilistic_sharpe": None,
        "deflated_sharpe": None,
        "trials_withstood": None,
        "drawdown_interval": None,
        "growth_interval": None,
        "block_days": None,
        "bootstrap": "ok",
        "shuffle": None if test is None else test._asdict(),
    }
    if found is None or len(daily) < statistics.DAYS_MIN:
        return figures | {"bootstrap": "too few days" if found is not None else "no returns"}
    figures |= {
        "sharpe_a_year": found.sharpe * statistics.DAYS_A_YEAR**0.5,
        "probabilistic_sharpe": statistics.probabilistic_sharpe(found.sharpe, found.n, found.skewness, found.kurtosis),
        "deflated_sharpe": statistics.deflated_sharpe(found, trials),
        "trials_withstood": statistics.trials_withstood(found),
        "skewness": found.skewness,
        "kurtosis": found.kurtosis,
    }
    try:
        drawn = statistics.bootstrapped(daily)
    except ImportError:
        return figures | {"bootstrap": "not installed"}
    if drawn is None:
        return figures | {"bootstrap": "no returns"}
    return figures | {
        "sharpe_interval": list(drawn.sharpe),
        "drawdown_interval": list(drawn.drawdown),
        "growth_interval": list(drawn.growth),
        "block_days": drawn.block_days,
    }


def _shuffle(run: Run, capital: float) -> statistics.Shuffled | None:
    """Return the shuffle test on the bars: what was held through each, against its returns in another order."""
    curve = run.curve
    if len(curve.time_ns) < 2:
        return None
    equity = np.maximum(capital + curve.column("profit")[:-1], 1e-9)
    weights, returns = [], []
    for symbol in curve.symbols:
        closes, held = np.array(curve.closes[symbol]), np.array(curve.held[symbol])
        with np.errstate(invalid="ignore"):
            returns.append(np.nan_to_num(closes[1:] / closes[:-1] - 1.0))
            weights.append(np.nan_to_num(held[1:] / closes[1:] * closes[:-1]) / equity)
    steps = np.diff(np.array(curve.time_ns, dtype=np.int64))
    a_day = max(1, round(DAY_NS / float(np.median(steps))))
    block = max(1, min(SHUFFLE_DAYS * a_day, len(steps) // BLOCKS_MIN))
    return statistics.shuffled(np.array(weights).T, np.array(returns).T, block)


def _claims(run: Run) -> list[dict[str, Any]]:
    """Return by strategy what was claimed and what came, in volatilities.

    `slope` is what a claim of 1 has brought; `covered` the share of returns inside the conformal interval in force.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for each in run.settlement.settled:
        if each.claimed is not None and each.volatility:
            pair = (each.claimed / each.volatility, each.realised / each.volatility)
            groups.setdefault(each.strategy_id, []).append(pair)
    found = []
    for name, pairs in sorted(groups.items()):
        x, y = np.array(pairs).T
        squares = float(x @ x)
        slope = float(x @ y) / squares if squares > 0 else None
        error = float(np.std(y)) / squares**0.5 if squares > 0 else None
        row = {"strategy": name, "claims": len(pairs), "claimed": float(x.mean()), "realised": float(y.mean())}
        total = run.coverage.total.get(name, 0)
        covered = run.coverage.inside[name] / total if total else None
        won = float((y > 0).mean())
        found.append({**row, "slope": slope, "slope_error": error, "won": won, "covered": covered})
    return found


def _caps(run: Run) -> dict[str, float]:
    """Return the share of decisions in which a cap of each level bound."""
    counts: dict[str, int] = {}
    for text in run.decisions.bound:
        for level in {each.split(":", 1)[0] for each in text.split(";") if each}:
            counts[level] = counts.get(level, 0) + 1
    total = len(run.decisions)
    return {level: counts[level] / total for level in sorted(counts)}


def _iso(time_ns: int) -> str:
    return instant(time_ns)


def day_of(time_ns: int) -> str:
    """Return the UTC day of a time, 2021-05-19."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).date().isoformat()

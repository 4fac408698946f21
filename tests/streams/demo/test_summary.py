"""The demo's summary: what the allocations say of the portfolio, and correlation on the day of the cascade."""

import csv
import gzip
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.demo import cascade_day
from streams.demo.statistics import CascadeHours, PortfolioStatistics
from streams.history import candles
from streams.history.candles import Candle, CandleFile, Candles

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(DATA.glob("*USDT_1h_*.csv.gz"))
real = pytest.mark.skipif(len(REAL) < 4, reason=f"no four coins' real candles in {DATA}")
HOUR_S = 3_600
DAY = date(2021, 5, 19)


# -- the portfolio -------------------------------------------------------------------------------------------------
def allocation(gross=0.3, bound=(), penalties=None, ratio=None, held=2, strategy=None, weights=()):
    return {
        "strategy_id": strategy,
        "strategy_weights": dict.fromkeys(weights, 0.5),
        "totals": {"utilization_ratio": gross},
        "bound": list(bound),
        "correlation_penalties": penalties or {},
        "diversification": None if ratio is None else {"ratio": ratio, "score": 1.0},
        "targets": {f"S{n}": {} for n in range(held)},
    }


def whole(*allocations):
    seen = PortfolioStatistics()
    for each in allocations:
        seen.take(each)
    return seen.report()


def test_before_any_allocation_nothing_is_claimed():
    assert whole() == {
        "strategies": [],
        "largest_gross_ratio": 0.0,
        "bound": {},
        "most_often": None,
        "largest_penalty": 0.0,
        "mean_diversification": None,
    }


def test_the_portfolio_by_hand():
    report = whole(
        allocation(0.31, ("symbol:BTC", "symbol:ETH", "cell:m/BTC"), {"BTC": 0.2, "ETH": 0.7}, 1.5, weights=("m", "r")),
        allocation(0.52, ("symbol:ETH",), {"BTC": 0.1}, 1.2, strategy="silent"),
        allocation(0.10, ("portfolio:all",)),
    )
    assert report == {
        "strategies": ["m", "r", "silent"],
        "largest_gross_ratio": 0.52,
        "bound": {"cell": 1, "portfolio": 1, "symbol": 2},
        "most_often": "symbol:ETH",
        "largest_penalty": 0.7,
        "mean_diversification": 1.35,
    }


def test_one_coin_alone_says_nothing_of_diversification():
    assert whole(allocation(ratio=1.0, held=1), allocation(ratio=1.6))["mean_diversification"] == 1.6


def test_of_caps_that_bound_equally_often_the_first_by_name_is_told():
    assert whole(allocation(bound=("symbol:B", "symbol:A")))["most_often"] == "symbol:A"


@given(st.lists(st.lists(st.sampled_from(("cell:a/B", "cell:a/C", "symbol:B", "portfolio:all")), unique=True)))
def test_a_level_counts_allocations_not_caps(bounds):
    report = whole(*(allocation(bound=bound) for bound in bounds))
    for level in ("cell", "symbol", "portfolio"):
        hit = sum(any(cap.startswith(level) for cap in bound) for bound in bounds)
        assert report["bound"].get(level, 0) == hit


# -- the day -------------------------------------------------------------------------------------------------------
def of_closes(symbol, closes, first=date(2021, 5, 10), width_s=HOUR_S):
    """Return candles from midnight of `first` on; None where one is missing."""
    start_s = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
    rows = [
        Candle((start_s + n * width_s) * 10**9, close, close, close, close, 1.0)
        for n, close in enumerate(closes)
        if close is not None
    ]
    return Candles(symbol, width_s, rows, CandleFile(len(rows), 0, 0))


def walks(hours=24 * 12, coins=3, seed=3):
    rng = np.random.default_rng(seed)
    noise = 0.01 * (rng.standard_normal((hours, 1)) + rng.standard_normal((hours, coins)))
    return (100.0 * np.exp(np.cumsum(noise, axis=0))).T.tolist()


def by_numpy(closes, first_hour, hours):
    returns = np.diff(np.log(np.array(closes)), axis=1)[:, first_hour - 1 : first_hour - 1 + hours]
    matrix = np.corrcoef(returns)
    return np.mean([matrix[i, j] for i, j in combinations(range(len(closes)), 2)])


def test_the_day_and_the_week_before_are_what_numpy_says():
    closes = walks()
    report = cascade_day.report([of_closes(f"C{n}", each) for n, each in enumerate(closes)], None)
    assert report == {
        "day": "2021-05-19",
        "on_the_day": pytest.approx(by_numpy(closes, 9 * 24, 24), abs=5e-5),
        "week_before": pytest.approx(by_numpy(closes, 2 * 24, 7 * 24), abs=5e-5),
    }


def test_where_the_known_day_is_not_in_the_data_the_worst_is_taken():
    closes = walks()
    files = [of_closes(f"C{n}", each, date(2022, 1, 1)) for n, each in enumerate(closes)]
    report = cascade_day.report(files, date(2022, 1, 9))
    assert report["day"] == "2022-01-09"
    assert report["on_the_day"] == pytest.approx(by_numpy(closes, 8 * 24, 24), abs=5e-5)
    assert cascade_day.report(files, None) is None


def test_a_missing_candle_takes_two_hours_of_its_pairs_and_no_more():
    closes = walks(coins=2)
    at = 9 * 24 + 5
    holed = [closes[0], [None if n == at else close for n, close in enumerate(closes[1])]]
    returns = np.diff(np.log(np.array(closes)), axis=1)[:, 9 * 24 - 1 : 10 * 24 - 1]
    kept = np.delete(returns, (5, 6), axis=1)
    report = cascade_day.report([of_closes(f"C{n}", each) for n, each in enumerate(holed)], None)
    assert report["on_the_day"] == pytest.approx(np.corrcoef(kept)[0, 1], abs=5e-5)


@pytest.mark.parametrize("width_s", [300, 900])
def test_shorter_candles_are_taken_by_the_hour(width_s):
    closes = walks(coins=2)
    fine = [[close for close in each for _ in range(HOUR_S // width_s)] for each in closes]
    hourly = [of_closes(f"C{n}", each) for n, each in enumerate(closes)]
    assert cascade_day.report(
        [of_closes(f"C{n}", each, width_s=width_s) for n, each in enumerate(fine)], None
    ) == cascade_day.report(hourly, None)


def test_one_coin_a_flat_coin_and_daily_candles_have_no_correlation():
    closes = walks(coins=2)
    one = of_closes("A", closes[0])
    assert cascade_day.report([], None) is cascade_day.report([one], None) is None
    assert cascade_day.report([one, of_closes("B", [5.0] * len(closes[1]))], None) is None
    assert (
        cascade_day.report(
            [of_closes(name, each, width_s=86_400) for name, each in zip("AB", closes, strict=True)], DAY
        )
        is None
    )


def test_an_unknown_week_before_is_told_as_such():
    closes = walks(hours=24, coins=2)
    report = cascade_day.report([of_closes(f"C{n}", each, DAY) for n, each in enumerate(closes)], None)
    assert report["on_the_day"] is not None
    assert report["week_before"] is None


def test_the_worst_day_is_that_of_the_highest_score():
    hours = CascadeHours(HOUR_S)
    assert hours.worst_day() is None
    hours.above += [
        {"symbol": "A", "time": "2021-05-19T12:00:00Z", "level": "EXIT", "score": 0.97},
        {"symbol": "A", "time": "2021-06-01T12:00:00Z", "level": "REDUCE_50%", "score": 0.5},
    ]
    assert hours.worst_day() == DAY


# -- real candles --------------------------------------------------------------------------------------------------
def closes_of(path):
    """Return close by hour since 1970, read without the project's reader."""
    with gzip.open(path, "rt") as lines:
        rows = list(csv.reader(lines))
    header = next(n for n, row in enumerate(rows) if "close" in [cell.lower() for cell in row])
    names = [cell.lower() for cell in rows[header]]
    time, close = next(n for n, name in enumerate(names) if name in {"timestamp", "unix"}), names.index("close")
    return {int(row[time]) // (HOUR_S * 10 ** (len(row[time]) - 10)): float(row[close]) for row in rows[header + 1 :]}


@real
def test_four_real_coins_fell_together_on_the_known_day_as_numpy_says():
    report = cascade_day.report([candles.read(path) for path in REAL[:4]], None)
    closes = [closes_of(path) for path in REAL[:4]]
    first = int(datetime(2021, 5, 19, tzinfo=UTC).timestamp()) // HOUR_S

    def mean(start, hours):
        returns = [[np.log(each[h] / each[h - 1]) for h in range(start, start + hours)] for each in closes]
        matrix = np.corrcoef(returns)
        return np.mean([matrix[i, j] for i, j in combinations(range(4), 2)])

    assert report == {
        "day": "2021-05-19",
        "on_the_day": pytest.approx(mean(first, 24), abs=5e-5),
        "week_before": pytest.approx(mean(first - 168, 168), abs=5e-5),
    }
    assert 0.87 <= report["on_the_day"] <= 0.96
    assert 0.40 <= report["week_before"] <= 0.88

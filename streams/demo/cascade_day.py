"""Mean correlation on one day and in the week before: what a cascade does to diversification.

Pearson correlations of hourly log returns, without smoothing or shrinkage.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import combinations
from math import log
from statistics import StatisticsError, correlation, fmean
from typing import Any

from streams.history.candles import Candles
from streams.processing.clock import SECOND_NS

KNOWN_DAY = date(2021, 5, 19)
"""The largest one-day fall of 2020 to 2022; preferred if the data covers it."""
HOUR_NS = 3_600 * SECOND_NS
DAY_HOURS, WEEK_DAYS = 24, 7
HOURS_MIN = 12
"""Common hours a pair needs to count."""

Returns = Mapping[int, float]
"""Hour since 1970 → log return over that hour."""


def report(files: Sequence[Candles], worst: date | None) -> dict[str, Any] | None:
    """Return the mean pairwise correlation on `KNOWN_DAY`, else on `worst`, and in the week before.

    None if neither day has a pair with `HOURS_MIN` common hours; the week's mean is None if the week has none.
    """
    returns = [hourly(each) for each in files]
    for day in filter(None, (KNOWN_DAY, worst)):
        on_the_day = mean_of_pairs(returns, day, 1)
        if on_the_day is not None:
            week_before = mean_of_pairs(returns, date.fromordinal(day.toordinal() - WEEK_DAYS), WEEK_DAYS)
            return {"day": day.isoformat(), "on_the_day": on_the_day, "week_before": week_before}
    return None


def hourly(candles: Candles) -> dict[int, float]:
    """Return the log return of each hour with a known close and previous close; an hour is (start, end]."""
    closes = {(candles.end_ns(candle) - 1) // HOUR_NS: candle.close for candle in candles.rows}
    return {hour: log(close / closes[hour - 1]) for hour, close in closes.items() if hour - 1 in closes}


def mean_of_pairs(returns: Sequence[Returns], first: date, days: int) -> float | None:
    """Return the mean correlation of all pairs over `days` UTC days; None if no pair has enough hours."""
    start = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()) * SECOND_NS // HOUR_NS
    pairs = list(_pairs(returns, range(start, start + days * DAY_HOURS)))
    return round(fmean(pairs), 4) if pairs else None


def _pairs(returns: Sequence[Returns], hours: range) -> Iterator[float]:
    for one, other in combinations(returns, 2):
        common = [hour for hour in hours if hour in one and hour in other]
        if len(common) < HOURS_MIN:
            continue
        try:
            yield correlation([one[hour] for hour in common], [other[hour] for hour in common])
        except StatisticsError:  # a price that never moved
            continue

"""The days of forced selling that are known by name, and what they did to a backtest."""

from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np

from streams.backtest.run import Run

KNOWN: Final = {
    "2020-03-12": "Covid crash",
    "2020-09-03": "DeFi summer ends",
    "2021-01-11": "first fall below 31,000",
    "2021-02-22": "flash crash",
    "2021-04-18": "Xinjiang weekend",
    "2021-05-19": "May crash",
    "2021-09-07": "El Salvador day",
    "2021-12-04": "December liquidations",
    "2022-01-21": "January sell-off",
    "2022-05-11": "Terra",
    "2022-06-13": "Celsius",
    "2022-11-08": "FTX",
    "2023-08-17": "August liquidations",
    "2024-08-05": "yen carry",
    "2025-10-10": "tariff liquidations",
}
"""Days (UTC) of large liquidations of BTC, and what they are called."""
DAY_NS: Final = 86_400 * 10**9


class CascadeDay(NamedTuple):
    """One day: what the market lost, and what each sizing did. Ratios of the value at the day's begin."""

    day: str
    name: str
    market: float
    """Mean over the symbols of the fall from the day's first close to its lowest."""
    cut: str
    """Strongest recommendation in force for a long position on that day."""
    ours: float
    others: dict[str, float]

    def report(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self._asdict()


def days(run: Run, capital: float) -> list[CascadeDay]:
    """Return the known days in the period, oldest first."""
    times = np.array(run.curve.time_ns, dtype=np.int64)
    found = []
    for text, name in KNOWN.items():
        first_ns = (date.fromisoformat(text) - date(1970, 1, 1)).days * DAY_NS
        rows = np.flatnonzero((times > first_ns) & (times <= first_ns + DAY_NS))
        if len(rows) < 2 or rows[0] == 0:
            continue
        before, last = int(rows[0]) - 1, int(rows[-1])
        others = {rival.name: _earned(rival.profit, before, last, capital) for rival in run.rivals}
        ours = _earned(run.curve.profit, before, last, capital)
        cut = _cut(run, first_ns, first_ns + DAY_NS)
        found.append(CascadeDay(text, name, _fall(run, before, last), cut, ours, others))
    return found


def _earned(profit: Any, before: int, last: int, capital: float) -> float:
    base = capital + profit[before]
    return float((profit[last] - profit[before]) / base) if base > 0 else 0.0


def _fall(run: Run, before: int, last: int) -> float:
    falls = []
    for closes in run.curve.closes.values():
        part = np.array(closes[before : last + 1])
        if np.isfinite(part).all():
            falls.append(float(part.min() / part[0] - 1.0))
    return float(np.mean(falls)) if falls else 0.0


def _cut(run: Run, first_ns: int, end_ns: int) -> str:
    order = ("MONITOR", "REDUCE_50%", "REDUCE_75%", "EXIT")
    reached = [
        level
        for at_ns, _, side, level, _ in run.cascades.changes
        if first_ns < at_ns <= end_ns + DAY_NS // 24 and side == "long"
    ]
    return max(reached, key=order.index, default="MONITOR")

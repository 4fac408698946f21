"""The real hours of forced selling that a long position must be cut in, and the levels that come out."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.value_course import Candles, candles
from engines.models import bars, cascade
from engines.models.cascade import Latch, Readings
from engines.parameters import CascadeLevels, CascadeThresholds, CascadeWeights, MarketParams
from engines.state.records import Bars
from schemas.vocabulary import RECOMMENDATIONS

MARKET, LEVELS = MarketParams(), CascadeLevels()
THRESHOLDS, WEIGHTS = CascadeThresholds(), CascadeWeights()
HOUR_NS = 3600 * 10**9


class Hour(NamedTuple):
    """One hour of the specification: what it must reach, and what its table knows of it."""

    when: str
    must: str
    volume: float
    z: float
    readings: Readings | None = None


OI_DROP = Readings(None, -0.289, None, None, None, None)
MARCH = Readings(-0.00375, -0.48, None, None, None, None)
HOURS = (
    Hour("2020-03-12", "EXIT", 10.0, 20.0, MARCH),
    Hour("2020-09-03 23", "REDUCE_75 or EXIT", 4.7, 10.5),
    Hour("2021-01-11 03", "REDUCE_50 or REDUCE_75", 3.6, 6.2),
    Hour("2021-02-22 14", "REDUCE_75", 4.7, 8.9),
    Hour("2021-04-18 03", "EXIT", 9.9, 27.1),
    Hour("2021-05-19 13", "REDUCE_75", 1.1, 10.0),
    Hour("2021-09-07 15", "EXIT", 7.8, 16.5, OI_DROP),
    Hour("2022-05-11 12", "REDUCE_75", 4.3, 6.5),
)
AROUND = 3
"""Hours before and after that are shown."""


class Look(NamedTuple):
    """What one hour's candle says to a long position."""

    z: float | None
    volume: float | None
    score: float | None
    level: int


def long_side(of: Candles) -> dict[str, Look]:
    """Return what each hour says, price and volume alone, candles as steps at their ends."""
    known: Bars | None = None
    latch: Latch | None = None
    found = {}
    for place, end_ns in enumerate(of.end_ns.tolist()):
        low, high = float(of.low[place]), float(of.high[place])
        open_, close, volume_coins = float(of.open[place]), float(of.close[place]), float(of.volume[place])
        known = bars.fold(known, open_, high, low, close, volume_coins, end_ns, MARKET)
        z, volume = bars.excursion(known, 1, MARKET), bars.volume_ratio(known, MARKET)
        raw = cascade.score(cascade.components(None, z, volume, 1, THRESHOLDS, LEVELS), WEIGHTS)
        latch = cascade.step(latch, raw, end_ns, LEVELS)
        when = datetime.fromtimestamp(end_ns // 10**9 - 3600, UTC).strftime("%Y-%m-%d %H")
        found[when] = Look(z, volume, None if raw is None else raw.raw, latch.level)
    return found


def at_once(hour: Hour) -> Look:
    """Return what the numbers that the specification lists for an hour say by themselves."""
    parts = cascade.components(hour.readings, hour.z, hour.volume, 1, THRESHOLDS, LEVELS)
    raw = cascade.score(parts, WEIGHTS)
    return Look(hour.z, hour.volume, None if raw is None else raw.raw, cascade.step(None, raw, HOUR_NS, LEVELS).level)


def report(folder: Path) -> str:
    """Return two tables: the listed hours, and the levels in force in the hours about them."""
    real = long_side(candles(folder, "BTC"))
    names = list(real)
    lines = ["| hour (UTC) | must reach | listed numbers: R, level | the hour's candle: z, volume, R, level in force |"]
    lines.append("|---|---|---|---|")
    for hour in HOURS:
        listed, seen = at_once(hour), real.get(hour.when)
        lines.append(
            f"| {hour.when}h | {hour.must} | {_short(listed)} | {'not in the data' if seen is None else _long(seen)} |"
        )
    lines += ["", "| hour about | " + " | ".join(f"{place:+d} h" for place in range(-AROUND, AROUND + 1)) + " |"]
    lines.append("|---" * (2 * AROUND + 2) + "|")
    for hour in HOURS:
        if hour.when in real:
            at = names.index(hour.when)
            levels = [RECOMMENDATIONS[real[name].level] for name in names[at - AROUND : at + AROUND + 1]]
            lines.append(f"| {hour.when}h | {' | '.join(levels)} |")
    acted = sum(look.level > 0 for look in real.values())
    alarms = sum(look.score is not None and look.score > LEVELS.reduce_50 for look in real.values())
    lines += ["", f"{len(real)} hours of BTC: R > {LEVELS.reduce_50} in {alarms}, a level in force in {acted}."]
    return "\n".join(lines)


def _short(look: Look) -> str:
    return f"{'–' if look.score is None else f'{look.score:.3f}'}, {RECOMMENDATIONS[look.level]}"


def _long(look: Look) -> str:
    z, volume = ("–" if each is None else f"{each:.1f}" for each in (look.z, look.volume))
    return f"{z}, {volume}, {_short(look)}"


if __name__ == "__main__":
    sys.stdout.write(report(Path(sys.argv[1])) + "\n")

"""The instants of a market: when candles end, and when candles open."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

from streams.history.candles import Candle, Candles


class MarketInstant(NamedTuple):
    """The candles of all symbols that end or open at one time."""

    time_ns: int
    ended: list[tuple[str, Candle]]
    """Symbols and candles, in the order of the symbols."""
    opened: list[tuple[str, float]]
    """Symbols and opening prices of the candles that begin at this time."""


def instants(market: Sequence[Candles]) -> Iterator[MarketInstant]:
    """Yield the instants in order of time; each end or opening belongs to exactly one of them."""
    edges = heapq.merge(*(_edges(number, each) for number, each in enumerate(market)))
    for time_ns, group in groupby(edges, key=itemgetter(0)):
        found = MarketInstant(time_ns, [], [])
        for _, opens, number, index in group:
            candles = market[number]
            candle = candles.rows[index]
            if opens:
                found.opened.append((candles.symbol, candle.open))
            else:
                found.ended.append((candles.symbol, candle))
        yield found


def _edges(number: int, candles: Candles) -> Iterator[tuple[int, bool, int, int]]:
    """Yield (time, whether it opens, number of the symbol, index of the candle), in order of time."""
    for index, candle in enumerate(candles.rows):
        yield candle.open_ns, True, number, index
        yield candles.end_ns(candle), False, number, index


def until(market: Sequence[Candles], end_ns: int) -> list[Candles]:
    """Return the candles that end at or before a time; symbols without any are left out."""
    kept = [_only(each, [row for row in each.rows if each.end_ns(row) <= end_ns]) for each in market]
    return [each for each in kept if each.rows]


def _only(candles: Candles, rows: list[Candle]) -> Candles:
    """Return some of a symbol's candles, counted anew."""
    gaps = sum(after.open_ns > candles.end_ns(before) for before, after in pairwise(rows))
    return candles._replace(rows=rows, found=candles.found._replace(rows=len(rows), gaps=gaps))

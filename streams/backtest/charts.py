"""Charts of a backtest as inline SVG: lines and areas over time. A line has at most about `POINTS` points."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.evidence.html import Markup, tag

WIDTH, LEFT, RIGHT, TOP, FOOT = 900, 80, 12, 22, 22
POINTS: Final = 700
GRID: Final = 4

Floats = NDArray[np.float64]


class Series(NamedTuple):
    """One line: what it is called, its CSS class, and a value for each time."""

    name: str
    css: str
    values: Floats


def lines(
    times_ns: Sequence[int], series: Sequence[Series], label: str, shown: Callable[[float], str], height: int = 260
) -> Markup:
    """Return lines over time with a legend; `shown` writes the values of the axis."""
    kept = thinned([each.values for each in series])
    low, high = _range([each.values for each in series])
    frame = _Frame(len(times_ns), low, high, height)
    parts = list(_axes(times_ns, frame, shown))
    for each in series:
        points = " ".join(f"{frame.x(index):.1f},{frame.y(float(each.values[index])):.1f}" for index in kept)
        parts.append(tag("g", tag("title", each.name), tag("polyline", points=points, class_=each.css)))
    parts += _legend(series)
    return _svg(label, parts, height)


def area(
    times_ns: Sequence[int],
    values: Floats,
    label: str,
    shown: Callable[[float], str],
    css: str = "area",
    height: int = 140,
) -> Markup:
    """Return one filled curve between 0 and its values."""
    low, high = _range([values, np.zeros(1)])
    frame = _Frame(len(times_ns), low, high, height)
    kept = thinned([values])
    points = [f"{frame.x(index):.1f},{frame.y(float(values[index])):.1f}" for index in kept]
    ends = [f"{frame.x(kept[-1]):.1f},{frame.y(0.0):.1f}", f"{frame.x(kept[0]):.1f},{frame.y(0.0):.1f}"]
    shape = tag("polygon", points=" ".join([*points, *ends]), class_=css)
    return _svg(label, [*_axes(times_ns, frame, shown), shape], height)


def thinned(columns: Sequence[Floats]) -> list[int]:
    """Return the indexes to draw: first, last, and of each stretch between the highest and lowest of every column.

    >>> thinned([np.array([1.0, 5.0, 2.0])])
    [0, 1, 2]
    """
    size = len(columns[0])
    if size <= POINTS:
        return list(range(size))
    stretches = max(1, POINTS // (2 * len(columns)))
    bounds = np.linspace(0, size, stretches + 1).astype(int)
    kept = {0, size - 1}
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for column in columns:
            part = column[first:end]
            kept |= {first + int(part.argmin()), first + int(part.argmax())}
    return sorted(kept)


class _Frame:
    """Maps indexes and values to positions in a chart."""

    def __init__(self, count: int, low: float, high: float, height: int) -> None:
        self.count, self.low, self.high, self.height = count, low, high, height

    def x(self, index: int) -> float:
        return LEFT + index * (WIDTH - LEFT - RIGHT) / max(1, self.count - 1)

    def y(self, value: float) -> float:
        return TOP + (self.high - value) * self.height / (self.high - self.low)


def _range(columns: Sequence[Floats]) -> tuple[float, float]:
    low = min(float(each.min()) for each in columns)
    high = max(float(each.max()) for each in columns)
    room = 0.03 * (high - low) or 1.0
    return low - room, high + room


def _axes(times_ns: Sequence[int], frame: _Frame, shown: Callable[[float], str]) -> Iterator[Markup]:
    for place in range(GRID + 1):
        value = frame.low + place * (frame.high - frame.low) / GRID
        y = round(frame.y(value), 1)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="axis")
        yield tag("text", shown(value), x=LEFT - 6, y=y + 4, text_anchor="end", class_="dim")
    bottom = TOP + frame.height + 16
    for place in range(GRID + 1):
        index = place * (len(times_ns) - 1) // GRID
        anchor = "start" if place == 0 else "end" if place == GRID else "middle"
        at = datetime.fromtimestamp(times_ns[index] // 10**9, UTC)
        yield tag("text", f"{at:%Y-%m-%d}", x=round(frame.x(index), 1), y=bottom, text_anchor=anchor, class_="dim")


def _legend(series: Sequence[Series]) -> Iterator[Markup]:
    x = LEFT
    for each in series:
        yield tag("line", x1=x, x2=x + 22, y1=10, y2=10, class_=each.css)
        yield tag("text", each.name, x=x + 28, y=14)
        x += 52 + 7 * len(each.name)


def _svg(label: str, parts: Sequence[Markup], height: int) -> Markup:
    box = f"0 0 {WIDTH} {TOP + height + FOOT}"
    return tag("svg", tag("title", label), *parts, viewBox=box, role="img")

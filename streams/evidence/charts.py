"""Charts as inline SVG: waterfalls of sizes, sums over time. Only the geometry is rounded, not the labels."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.evidence.html import Markup, tag
from streams.evidence.text_report import usd

WIDTH = 900
LEFT, RIGHT = 110, 130
ROW = 24
HEIGHT = 260
TOP = 20


class WaterfallBar(NamedTuple):
    """One stage of a waterfall."""

    label: str
    before_cents: int
    after_cents: int
    remark: str


class SeriesLine(NamedTuple):
    """One series over time."""

    label: str
    css: str
    cents: Sequence[int]


def waterfall(bars: Sequence[WaterfallBar], label: str) -> Markup:
    """Return a waterfall chart: stages from top to bottom, each a bar from input to output size."""
    values = [0, *(bar.before_cents for bar in bars), *(bar.after_cents for bar in bars)]
    low, high = min(values), max(values)
    scale = (WIDTH - LEFT - RIGHT) / ((high - low) or 1)

    def x(cents: int) -> float:
        return round(LEFT + (cents - low) * scale, 2)

    bottom = ROW * len(bars) + 8
    parts = [tag("line", x1=x(0), x2=x(0), y1=2, y2=bottom, class_="axis")]
    for place, bar in enumerate(bars):
        parts += _bar(bar, place * ROW + 4, x(bar.before_cents), x(bar.after_cents))
    return tag("svg", tag("title", label), *parts, viewBox=f"0 0 {WIDTH} {bottom + 6}", role="img")


def _bar(bar: WaterfallBar, y: int, start: float, end: float) -> list[Markup]:
    grows = abs(bar.after_cents) > abs(bar.before_cents)
    css = "mark" if start == end else "up" if grows else "down"
    hover = tag("title", f"{bar.label}: {usd(bar.before_cents)} to {usd(bar.after_cents)} {bar.remark}".rstrip())
    width = max(2.0, round(abs(end - start), 2))
    return [
        tag("text", bar.label, x=4, y=y + 13),
        tag("g", hover, tag("rect", x=min(start, end), y=y, width=width, height=ROW - 8, class_=css)),
        tag("text", usd(bar.after_cents), x=WIDTH - 4, y=y + 13, text_anchor="end"),
    ]


def over_time(instants: Sequence[str], bars: Sequence[int], lines: Sequence[SeriesLine], label: str) -> Markup:
    """Return lines over bars in cents, one point per time bucket; lines and bars share one scale from 0."""
    top_cents = max([1, *bars, *(value for line in lines for value in line.cents)])
    span = (WIDTH - LEFT - 10) / max(1, len(instants))

    def y(cents: int) -> float:
        return round(TOP + HEIGHT - max(0, cents) * HEIGHT / top_cents, 2)

    parts = [
        tag("line", x1=LEFT, x2=WIDTH - 10, y1=TOP + HEIGHT, y2=TOP + HEIGHT, class_="axis"),
        tag("text", usd(top_cents), x=LEFT - 6, y=TOP + 4, text_anchor="end"),
        tag("text", "0.00", x=LEFT - 6, y=TOP + HEIGHT, text_anchor="end"),
    ]
    for place, (at, cents) in enumerate(zip(instants, bars, strict=True)):
        box = {"x": round(LEFT + place * span, 2), "y": y(cents), "width": round(span * 0.8, 2)}
        bar = tag("rect", **box, height=round(TOP + HEIGHT - y(cents), 2), class_="down")
        parts.append(tag("g", tag("title", f"{at}: {usd(cents)}"), bar))
    for line in lines:
        points = " ".join(f"{round(LEFT + (i + 0.4) * span, 2)},{y(cents)}" for i, cents in enumerate(line.cents))
        parts.append(tag("g", tag("title", line.label), tag("polyline", points=points, class_=line.css)))
    if instants:
        parts += [
            tag("text", instants[0], x=LEFT, y=TOP + HEIGHT + 18, class_="dim"),
            tag("text", instants[-1], x=WIDTH - 10, y=TOP + HEIGHT + 18, text_anchor="end", class_="dim"),
        ]
    return tag("svg", tag("title", label), *parts, viewBox=f"0 0 {WIDTH} {TOP + HEIGHT + 28}", role="img")

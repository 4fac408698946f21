"""The live table: the dashboard drawn on a terminal, or a plain line at intervals where there is none."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streams.demo import panels
from streams.demo.dashboard import CALM, CellKey, Dashboard, DecisionRow, News, StageStep
from streams.demo.terminal import Terminal, column

ROWS_MAX = 24
WIDE, MEDIUM = 160, 98
"""Minimum terminal widths to show a column per stage, and to show the regime and calibration columns."""
PLAIN_EVERY_S = 5.0

STAGES = (
    ("kelly", "kelly"),
    ("conformal", "conf."),
    ("risk_score", "risk"),
    ("sentiment", "sent."),
    ("regime", "regime"),
    ("cascade", "casc."),
    ("drawdown", "draw."),
    ("ensemble", "ens."),
    ("portfolio", "portf."),
    ("caps", "caps"),
)
LEVELS = {
    CALM: ("calm", "green4"),
    "REDUCE_50%": ("cut 50%", "black on yellow3"),
    "REDUCE_75%": ("cut 75%", "black on dark_orange"),
    "EXIT": ("EXIT", "bold white on red3"),
}
REGIMES = {
    "trending_up": ("↗ up", "spring_green3"),
    "trending_down": ("↘ down", "light_coral"),
    "ranging": ("→ ranging", "grey70"),
    "high_volatility": ("≈ volatile", "yellow3"),
    "crisis": ("× crisis", "bold red3"),
}
Justify = Literal["left", "right"]


class Picture:
    """A dashboard as a rich renderable; depends only on the dashboard and the console's size and encoding."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield draw(self.dashboard, Terminal(options.max_width, options.max_height, options.ascii_only))


def draw(dashboard: Dashboard, terminal: Terminal) -> RenderableType:
    """Return the complete display."""
    parts: list[RenderableType] = [_header(dashboard, terminal)]
    if dashboard.total:
        parts.append(_progress(dashboard, terminal))
    parts += [Text(), _table(dashboard, terminal), Text()]
    inner = terminal._replace(width=terminal.width - 2)
    whole = panels.draw(dashboard, inner, inner.height - _lines(dashboard))
    if whole is not None:
        parts += [whole, Text()]
    parts.append(_news(dashboard, terminal))
    return Padding(Group(*parts), (0, 1))


def _lines(dashboard: Dashboard) -> int:
    """Return the number of lines without the panels."""
    shown = _shown(dashboard)
    table = 2 + len(shown) + len({key[:2] for key in shown}) + (len(dashboard.rows) > len(shown))
    return 2 + bool(dashboard.total) + 1 + table + 2 + len(dashboard.news)


def line(dashboard: Dashboard) -> str:
    """Return the dashboard as one plain line, for logs and pipes."""
    parts = [
        _when(dashboard.now_ns),
        f"{dashboard.signals} signals",
        f"{dashboard.allocations} allocations",
        f"{dashboard.dead_letters} dead letters",
        f"lag {dashboard.lag}",
    ]
    if dashboard.total:
        parts.append(f"{min(1.0, dashboard.done / dashboard.total):.0%} done")
    for portfolio, (value, gross) in sorted(dashboard.values.items()):
        parts.append(f"{portfolio} {gross / value:.0%} in use")
    mean = None if dashboard.correlations is None else dashboard.correlations.mean
    if mean is not None:
        parts.append(f"correlation {mean:.2f}")
    if dashboard.policy is not None:
        parts.append(f"policy {dashboard.policy.mode}, gate {dashboard.policy.gate}")
    cut = sorted({f"{symbol} {level}" for (symbol, _), level in dashboard.levels.items() if level != CALM})
    return ", ".join(parts + cut)


# -- header and footer ---------------------------------------------------------------------------------------------
def _header(dashboard: Dashboard, terminal: Terminal) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    name = Text.assemble(terminal.text("HIMARI", "bold deep_sky_blue1"), terminal.text(" layer 3", "grey70"))
    if dashboard.title:
        name.append_text(terminal.text(f" · {dashboard.title}", "grey50"))
    grid.add_row(name, terminal.text(_when(dashboard.now_ns), "bold"))
    grid.add_row(_counters(dashboard, terminal), _in_use(dashboard, terminal))
    return grid


def _counters(dashboard: Dashboard, terminal: Terminal) -> Text:
    counters = (
        ("signals", dashboard.signals, "bold"),
        ("allocations", dashboard.allocations, "bold"),
        ("dead letters", dashboard.dead_letters, "bold red3" if dashboard.dead_letters else "grey50"),
        ("lag", dashboard.lag, "grey50" if dashboard.lag < 100 else "bold yellow3"),
    )
    shown = Text(overflow="ellipsis", no_wrap=True)
    for name, count, style in counters:
        shown.append_text(terminal.text(f"{count:,}", style)).append_text(terminal.text(f" {name}   ", "grey50"))
    return shown


def _in_use(dashboard: Dashboard, terminal: Terminal) -> Text:
    """Return the allocated share of the portfolios' value as a bar of ten glyphs."""
    value, gross = (
        (sum(each) for each in zip(*dashboard.values.values(), strict=True)) if dashboard.values else (0.0, 0.0)
    )
    share = gross / value if value else 0.0
    return Text.assemble(
        terminal.text("in use ", "grey50"),
        terminal.gauge(share, "deep_sky_blue1"),
        terminal.text(f" {share:4.0%}", "bold"),
    )


def _progress(dashboard: Dashboard, terminal: Terminal) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    total = dashboard.total or 1.0
    bar = ProgressBar(total=total, completed=min(dashboard.done, total), complete_style="deep_sky_blue1")
    grid.add_row(bar, terminal.text(f"{min(1.0, dashboard.done / total):.0%}", "grey70"))
    return grid


def _news(dashboard: Dashboard, terminal: Terminal) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in reversed(dashboard.news):
        grid.add_row(*_news_row(each, terminal))
    return grid


def _news_row(news: News, terminal: Terminal) -> tuple[Text, Text, Text]:
    style = "bold red3" if news.grave else "grey70"
    when = terminal.text(_when(news.time_ns)[5:-4], "grey50")
    return when, terminal.text(news.text, style), terminal.text(" ".join(news.subjects), "grey70")


# -- the table -----------------------------------------------------------------------------------------------------
def _table(dashboard: Dashboard, terminal: Terminal) -> RenderableType:
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        header_style="grey50",
        border_style="grey30",
        show_edge=False,
    )
    for name, justify, ratio in _columns(terminal):
        table.add_column(name, justify=justify, ratio=ratio, no_wrap=True, overflow="ellipsis")
    shown = _shown(dashboard)
    for index, key in enumerate(shown):
        follows = index > 0 and shown[index - 1][:2] == key[:2]
        ends = index + 1 == len(shown) or shown[index + 1][:2] != key[:2]
        table.add_row(*_cells(dashboard, key, terminal, follows=follows), end_section=ends and index + 1 < len(shown))
    hidden = len(dashboard.rows) - len(shown)
    return Group(table, terminal.text(f"and {hidden} more cells", "grey50")) if hidden else table


def _shown(dashboard: Dashboard) -> list[CellKey]:
    """Return the most recently decided cells, sorted."""
    newest = sorted(dashboard.rows, key=lambda key: -dashboard.rows[key].timestamp_ns)[:ROWS_MAX]
    return sorted(newest)


def _columns(terminal: Terminal) -> Iterator[tuple[str, Justify, int | None]]:
    """Yield (name, justification, ratio) of each column that fits."""
    yield from (("symbol", "left", None), ("strategy", "left", None), ("", "left", None))
    if terminal.width >= WIDE:
        yield from ((title, "right", None) for _, title in STAGES)
    else:
        yield ("stages", "left", None)
    yield from (("final $", "right", None), ("target $", "right", None), ("cascade", "left", None))
    if terminal.width >= MEDIUM:
        yield from (("regime", "left", None), ("true share", "left", None))
    yield ("why", "left", 1)


def _cells(dashboard: Dashboard, key: CellKey, terminal: Terminal, *, follows: bool) -> Iterator[Text]:
    portfolio, symbol, strategy = key
    row = dashboard.rows[key]
    several = len(dashboard.values) > 1
    yield terminal.text("" if follows else f"{portfolio} {symbol}" if several else symbol, "bold")
    yield terminal.text(strategy, "grey70")
    yield _side(row, terminal)
    if terminal.width >= WIDE:
        yield from (_left(row.steps.get(stage), terminal) for stage, _ in STAGES)
    else:
        yield _waterfall(row, terminal)
    yield terminal.text(_money(row.final), "bold" if row.final else "grey50")
    target = dashboard.targets.get((portfolio, symbol), 0.0)
    yield terminal.text("" if follows else _money(round(100.0 * target)), "bold deep_sky_blue1" if target else "grey50")
    yield Text().append_text(terminal.text(*LEVELS[dashboard.level(symbol, row)]))
    if terminal.width >= MEDIUM:
        regime = dashboard.regimes.get((portfolio, symbol), "")
        yield terminal.text("" if follows else REGIMES.get(regime, (regime, ""))[0], REGIMES.get(regime, ("", ""))[1])
        yield _trail(row.trail, terminal)
    yield terminal.text(row.why, "grey70")


def _side(row: DecisionRow, terminal: Terminal) -> Text:
    return terminal.text(
        *(("▲", "spring_green3") if row.side > 0 else ("▼", "light_coral") if row.side else ("·", "grey50"))
    )


def _left(step: StageStep | None, terminal: Terminal) -> Text:
    """Return a stage's output size, coloured if it changed it; a dot if it did not."""
    if step is None or not (step.before or step.after):
        return Text()
    if not step.before:
        return terminal.text(_short(step.after))
    if not step.taken:
        return terminal.text("·", "grey50")
    if step.taken < 0:
        return terminal.text(_short(step.after), "spring_green3")
    share = step.taken / abs(step.before)
    return terminal.text(_short(step.after), "bold red3" if share > 0.6 else "light_coral" if share > 0.2 else "khaki3")


def _waterfall(row: DecisionRow, terminal: Terminal) -> Text:
    """Return one bar per stage; its height is the remaining share of the Kelly size."""
    first = abs(row.steps["kelly"].after) if "kelly" in row.steps else 0
    shown = Text()
    for stage, _ in STAGES:
        step = row.steps.get(stage)
        share = abs(step.after) / first if step is not None and first else 0.0
        style = "grey50" if step is None or not step.taken else "light_coral" if step.taken > 0 else "spring_green3"
        shown.append_text(terminal.text(column(share), style))
    return shown


def _trail(trail: tuple[float, ...], terminal: Terminal) -> Text:
    """Return the current calibration and its recent history as bars; full height is 1, fully calibrated."""
    if not trail:
        return Text()
    shown = terminal.text(f"{trail[-1]:5.2f} ".replace("-", "−"), "spring_green3" if trail[-1] > 0.4 else "light_coral")
    return shown.append_text(terminal.text("".join(column(b) for b in trail[-6:]), "grey50"))


# -- numbers -------------------------------------------------------------------------------------------------------
def _when(time_ns: int) -> str:
    if not time_ns:
        return "not begun"
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC"


def _money(cents: int) -> str:
    """Return whole USD, signed."""
    return f"{abs(cents) // 100:,}" if cents >= 0 else f"−{abs(cents) // 100:,}"


def _short(cents: int) -> str:
    """Return a size in at most five characters."""
    usd = abs(cents) / 100.0
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if usd >= 0.9995 * unit:
            return f"{usd / unit:.3g}{name}" if usd < 999.5 * unit else f"{usd / unit:.0f}{name}"
    return f"{usd:.0f}"


# -- the screen ----------------------------------------------------------------------------------------------------
class Screen:
    """Context manager that shows a dashboard: a live table on a terminal, otherwise a line at intervals.

    The caller calls `refresh`; there is no thread. Writes to stderr, since stdout carries data.
    """

    def __init__(
        self,
        dashboard: Dashboard,
        console: Console | None = None,
        *,
        every_s: float = PLAIN_EVERY_S,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show `dashboard`; without a terminal print a line every `every_s` seconds of the clock `wall`."""
        self.dashboard = dashboard
        self.console = console or Console(stderr=True)
        self.every_s = every_s
        self.wall = wall
        self._printed_s: float | None = None
        self._printed = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(
                Picture(self.dashboard),
                console=self.console,
                auto_refresh=False,
                redirect_stdout=False,
                vertical_overflow="crop",
            )
            self._live.start()
        return self

    def refresh(self) -> None:
        """Draw the dashboard."""
        if self._live is not None:
            self._live.update(Picture(self.dashboard), refresh=True)
            return
        now_s = self.wall()
        if self._printed_s is None or now_s - self._printed_s >= self.every_s:
            self._printed_s = now_s
            self._print()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._live is None:
            self._print()
        else:
            self._live.update(Picture(self.dashboard), refresh=True)
            self._live.stop()

    def _print(self) -> None:
        text = line(self.dashboard)
        if text != self._printed:
            self._printed = text
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

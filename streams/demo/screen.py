"""The live table: the board drawn for a terminal, as wide as it is; a plain line now and then where there is none."""

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
from streams.demo.dashboard import CALM, Board, CellKey, DecisionRow, News, StageStep
from streams.demo.terminal import Ink, column

ROWS_MAX = 24
WIDE, MEDIUM = 160, 98
"""Widths of a terminal from which on every stage has a column, and from which on regimes and calibrations have one."""
PLAIN_EVERY_S = 5.0

STAGES = (
    ("kelly", "kelly"),
    ("conformal", "conf."),
    ("risk_score", "risk"),
    ("sentiment", "mood"),
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
    """A board as a rich renderable; looks at nothing but the board and the console's size and encoding."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield draw(self.board, Ink(options.max_width, options.max_height, options.ascii_only))


def draw(board: Board, ink: Ink) -> RenderableType:
    """Return the whole picture."""
    parts: list[RenderableType] = [_header(board, ink)]
    if board.total:
        parts.append(_progress(board, ink))
    parts += [Text(), _table(board, ink), Text()]
    inner = ink._replace(width=ink.width - 2)
    whole = panels.draw(board, inner, inner.height - _lines(board))
    if whole is not None:
        parts += [whole, Text()]
    parts.append(_news(board, ink))
    return Padding(Group(*parts), (0, 1))


def _lines(board: Board) -> int:
    """Return how many lines all takes but the panels."""
    shown = _shown(board)
    table = 2 + len(shown) + len({key[:2] for key in shown}) + (len(board.rows) > len(shown))
    return 2 + bool(board.total) + 1 + table + 2 + len(board.news)


def line(board: Board) -> str:
    """Return the board as one plain line, for logs and pipes."""
    parts = [
        _when(board.now_ns),
        f"{board.signals} signals",
        f"{board.allocations} allocations",
        f"{board.dead_letters} dead letters",
        f"lag {board.lag}",
    ]
    if board.total:
        parts.append(f"{min(1.0, board.done / board.total):.0%} done")
    for portfolio, (value, gross) in sorted(board.values.items()):
        parts.append(f"{portfolio} {gross / value:.0%} in use")
    mean = None if board.correlations is None else board.correlations.mean
    if mean is not None:
        parts.append(f"correlation {mean:.2f}")
    if board.policy is not None:
        parts.append(f"policy {board.policy.mode}, gate {board.policy.gate}")
    cut = sorted({f"{symbol} {level}" for (symbol, _), level in board.levels.items() if level != CALM})
    return ", ".join(parts + cut)


# -- header and footer ---------------------------------------------------------------------------------------------
def _header(board: Board, ink: Ink) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    name = Text.assemble(ink.text("HIMARI", "bold deep_sky_blue1"), ink.text(" layer 3", "grey70"))
    if board.title:
        name.append_text(ink.text(f" · {board.title}", "grey50"))
    grid.add_row(name, ink.text(_when(board.now_ns), "bold"))
    grid.add_row(_counters(board, ink), _in_use(board, ink))
    return grid


def _counters(board: Board, ink: Ink) -> Text:
    counters = (
        ("signals", board.signals, "bold"),
        ("allocations", board.allocations, "bold"),
        ("dead letters", board.dead_letters, "bold red3" if board.dead_letters else "grey50"),
        ("lag", board.lag, "grey50" if board.lag < 100 else "bold yellow3"),
    )
    shown = Text(overflow="ellipsis", no_wrap=True)
    for name, count, style in counters:
        shown.append_text(ink.text(f"{count:,}", style)).append_text(ink.text(f" {name}   ", "grey50"))
    return shown


def _in_use(board: Board, ink: Ink) -> Text:
    """Return how much of the portfolios' value is allocated, as a bar of ten."""
    value, gross = (sum(each) for each in zip(*board.values.values(), strict=True)) if board.values else (0.0, 0.0)
    share = gross / value if value else 0.0
    return Text.assemble(
        ink.text("in use ", "grey50"), ink.gauge(share, "deep_sky_blue1"), ink.text(f" {share:4.0%}", "bold")
    )


def _progress(board: Board, ink: Ink) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    total = board.total or 1.0
    bar = ProgressBar(total=total, completed=min(board.done, total), complete_style="deep_sky_blue1")
    grid.add_row(bar, ink.text(f"{min(1.0, board.done / total):.0%}", "grey70"))
    return grid


def _news(board: Board, ink: Ink) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in reversed(board.news):
        grid.add_row(*_told(each, ink))
    return grid


def _told(news: News, ink: Ink) -> tuple[Text, Text, Text]:
    style = "bold red3" if news.grave else "grey70"
    when = ink.text(_when(news.time_ns)[5:-4], "grey50")
    return when, ink.text(news.text, style), ink.text(" ".join(news.subjects), "grey70")


# -- the table -----------------------------------------------------------------------------------------------------
def _table(board: Board, ink: Ink) -> RenderableType:
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        header_style="grey50",
        border_style="grey30",
        show_edge=False,
    )
    for name, justify, ratio in _columns(ink):
        table.add_column(name, justify=justify, ratio=ratio, no_wrap=True, overflow="ellipsis")
    shown = _shown(board)
    for index, key in enumerate(shown):
        follows = index > 0 and shown[index - 1][:2] == key[:2]
        ends = index + 1 == len(shown) or shown[index + 1][:2] != key[:2]
        table.add_row(*_cells(board, key, ink, follows=follows), end_section=ends and index + 1 < len(shown))
    hidden = len(board.rows) - len(shown)
    return Group(table, ink.text(f"and {hidden} more cells", "grey50")) if hidden else table


def _shown(board: Board) -> list[CellKey]:
    """Return the cells that were decided last, sorted."""
    newest = sorted(board.rows, key=lambda key: -board.rows[key].timestamp_ns)[:ROWS_MAX]
    return sorted(newest)


def _columns(ink: Ink) -> Iterator[tuple[str, Justify, int | None]]:
    """Yield name, justification and ratio of each column that fits."""
    yield from (("symbol", "left", None), ("strategy", "left", None), ("", "left", None))
    if ink.width >= WIDE:
        yield from ((title, "right", None) for _, title in STAGES)
    else:
        yield ("stages", "left", None)
    yield from (("final $", "right", None), ("target $", "right", None), ("cascade", "left", None))
    if ink.width >= MEDIUM:
        yield from (("regime", "left", None), ("true share", "left", None))
    yield ("why", "left", 1)


def _cells(board: Board, key: CellKey, ink: Ink, *, follows: bool) -> Iterator[Text]:
    portfolio, symbol, strategy = key
    row = board.rows[key]
    several = len(board.values) > 1
    yield ink.text("" if follows else f"{portfolio} {symbol}" if several else symbol, "bold")
    yield ink.text(strategy, "grey70")
    yield _side(row, ink)
    if ink.width >= WIDE:
        yield from (_left(row.steps.get(stage), ink) for stage, _ in STAGES)
    else:
        yield _waterfall(row, ink)
    yield ink.text(_money(row.final), "bold" if row.final else "grey50")
    target = board.targets.get((portfolio, symbol), 0.0)
    yield ink.text("" if follows else _money(round(100.0 * target)), "bold deep_sky_blue1" if target else "grey50")
    yield Text().append_text(ink.text(*LEVELS[board.level(symbol, row)]))
    if ink.width >= MEDIUM:
        regime = board.regimes.get((portfolio, symbol), "")
        yield ink.text("" if follows else REGIMES.get(regime, (regime, ""))[0], REGIMES.get(regime, ("", ""))[1])
        yield _trail(row.trail, ink)
    yield ink.text(row.why, "grey70")


def _side(row: DecisionRow, ink: Ink) -> Text:
    return ink.text(
        *(("▲", "spring_green3") if row.side > 0 else ("▼", "light_coral") if row.side else ("·", "grey50"))
    )


def _left(step: StageStep | None, ink: Ink) -> Text:
    """Return what a stage left, in colour where it took or added; a dot where it left all."""
    if step is None or not (step.before or step.after):
        return Text()
    if not step.before:
        return ink.text(_short(step.after))
    if not step.taken:
        return ink.text("·", "grey50")
    if step.taken < 0:
        return ink.text(_short(step.after), "spring_green3")
    share = step.taken / abs(step.before)
    return ink.text(_short(step.after), "bold red3" if share > 0.6 else "light_coral" if share > 0.2 else "khaki3")


def _waterfall(row: DecisionRow, ink: Ink) -> Text:
    """Return one bar a stage, as high as the share of the Kelly size that it left."""
    first = abs(row.steps["kelly"].after) if "kelly" in row.steps else 0
    shown = Text()
    for stage, _ in STAGES:
        step = row.steps.get(stage)
        share = abs(step.after) / first if step is not None and first else 0.0
        style = "grey50" if step is None or not step.taken else "light_coral" if step.taken > 0 else "spring_green3"
        shown.append_text(ink.text(column(share), style))
    return shown


def _trail(trail: tuple[float, ...], ink: Ink) -> Text:
    """Return the calibration now, and how it came there: full height is 1, honest."""
    if not trail:
        return Text()
    shown = ink.text(f"{trail[-1]:5.2f} ".replace("-", "−"), "spring_green3" if trail[-1] > 0.4 else "light_coral")
    return shown.append_text(ink.text("".join(column(b) for b in trail[-6:]), "grey50"))


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
    """Shows a board while it is entered: a table that is drawn anew on a terminal, else a line now and then.

    The caller refreshes; no thread runs. The console is standard error's: data goes to standard output.
    """

    def __init__(
        self,
        board: Board,
        console: Console | None = None,
        *,
        every_s: float = PLAIN_EVERY_S,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show `board`; where there is no terminal a line every `every_s` seconds by `wall`."""
        self.board = board
        self.console = console or Console(stderr=True)
        self.every_s = every_s
        self.wall = wall
        self._told_s: float | None = None
        self._told = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(
                Picture(self.board),
                console=self.console,
                auto_refresh=False,
                redirect_stdout=False,
                vertical_overflow="crop",
            )
            self._live.start()
        return self

    def refresh(self) -> None:
        """Draw the board as it is now."""
        if self._live is not None:
            self._live.update(Picture(self.board), refresh=True)
            return
        now_s = self.wall()
        if self._told_s is None or now_s - self._told_s >= self.every_s:
            self._told_s = now_s
            self._tell()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._live is None:
            self._tell()
        else:
            self._live.update(Picture(self.board), refresh=True)
            self._live.stop()

    def _tell(self) -> None:
        told = line(self.board)
        if told != self._told:
            self._told = told
            self.console.print(told, highlight=False, markup=False, soft_wrap=True)

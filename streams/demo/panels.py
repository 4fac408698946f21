"""The panels of the portfolio: correlation heat, budgets, strategies; side by side where they fit, else a line each."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.demo.correlation_tracker import Together
from streams.demo.dashboard import Board
from streams.demo.terminal import Ink, column

COINS_MAX = 12
"""Coins of the heat, and symbols of the budgets: the first by name."""
STRATEGIES_MAX = 8
COIN_WIDTH, NAME_WIDTH = 5, 14
CELL_WIDTH = 4
"""Of the heat."""
GAP = 4
QUOTES = ("USDT", "USDC", "USD")
HEAT = (
    (-0.2, "white on blue"),
    (0.2, "grey70 on grey15"),
    (0.4, "grey85 on grey27"),
    (0.55, "black on khaki3"),
    (0.7, "black on yellow3"),
    (0.85, "black on dark_orange"),
)
"""A correlation below the number has the style; above all of them it is `HOTTEST`."""
HOTTEST = "bold white on red3"


class Panel(NamedTuple):
    """One panel in its two shapes."""

    picture: Table
    width: int
    height: int
    line: Text


def draw(board: Board, ink: Ink, lines: int) -> RenderableType | None:
    """Return what is known of the portfolio, in so many lines if it can be done; None where nothing is known."""
    panels = [
        panel
        for panel in (_heat(board, ink), _budgets(board, ink), _strategies(board, ink), _policy(board, ink))
        if panel
    ]
    if not panels:
        return None
    beside = list(panels)
    while beside and sum(panel.width + GAP for panel in beside) - GAP > ink.width:
        beside.remove(max(beside, key=lambda panel: panel.width))
    if max((panel.height for panel in beside), default=0) + len(panels) - len(beside) > lines:
        beside = []
    parts: list[RenderableType] = []
    if beside:
        row = Table.grid(padding=(0, GAP, 0, 0))
        row.add_row(*(panel.picture for panel in beside))
        parts.append(row)
    return Group(*parts, *(panel.line for panel in panels if panel not in beside))


# -- correlation ---------------------------------------------------------------------------------------------------
def _heat(board: Board, ink: Ink) -> Panel | None:
    together = board.correlations
    if together is None or together.mean is None:
        return None
    names = [_coin(symbol) for symbol in together.symbols[:COINS_MAX]]
    grid = Table.grid()
    grid.add_column(width=COIN_WIDTH)
    for _ in names:
        grid.add_column(width=CELL_WIDTH, no_wrap=True, justify="right")
    grid.add_row(ink.text("corr.", "grey50"), *(ink.text(name[:3] + " ", "grey50") for name in names))
    for i, (name, row) in enumerate(zip(names, together.rows, strict=False)):
        cells = (_cell(rho, ink, own=i == j) for j, rho in enumerate(row[: len(names)]))
        grid.add_row(ink.text(name, "grey70"), *cells)
    grid.add_row(ink.text("mean", "grey50"), _cell(together.mean, ink, own=False))
    width = COIN_WIDTH + CELL_WIDTH * len(names)
    return Panel(grid, width, 2 + len(names), _heat_line(together, ink))


def _cell(rho: float, ink: Ink, *, own: bool) -> Text:
    """Return a correlation in hundredths, on its colour."""
    if own:
        return ink.text("·  ", "grey50")
    return ink.text(f"{_hundredths(rho):>{CELL_WIDTH - 1}} ", _heat_of(rho))


def _heat_of(rho: float) -> str:
    return next((style for below, style in HEAT if rho < below), HOTTEST)


def _hundredths(rho: float) -> str:
    return f"{round(100 * rho)}".replace("-", "−")


def _heat_line(together: Together, ink: Ink) -> Text:
    pairs = combinations(range(len(together.symbols)), 2)
    i, j = max(pairs, key=lambda pair: together.rows[pair[0]][pair[1]])
    pair = f"{_coin(together.symbols[i])} {_coin(together.symbols[j])}"
    rho = together.rows[i][j]
    shown = _line(ink, "correlation", f"{together.mean or 0.0:.2f} mean, {pair} ")
    return shown.append_text(ink.text(f" {_hundredths(rho)} ", _heat_of(rho)))


# -- budgets -------------------------------------------------------------------------------------------------------
def _budgets(board: Board, ink: Ink) -> Panel | None:
    levels = board.budgets.get(board.latest)
    if levels is None:
        return None
    symbols = [(_coin(symbol), share) for symbol, share in sorted(levels["position"].items())]
    rows = [("portfolio", levels["portfolio"]["all"]), *symbols[:COINS_MAX]]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ink.text("budget", "grey50"), ink.text("of its cap", "grey50"), Text())
    for name, share in rows:
        grid.add_row(ink.text(name, "grey70"), ink.gauge(share, _full(share)), ink.text(f"{share:4.0%}", "bold"))
    line = _line(ink, "budgets", " ".join(f"{name} {share:.0%}" for name, share in rows))
    return Panel(grid, len("portfolio") + 1 + 10 + 1 + 5, 1 + len(rows), line)


def _full(share: float) -> str:
    return "light_coral" if share > 0.98 else "khaki3" if share > 0.8 else "deep_sky_blue1"


# -- strategies ----------------------------------------------------------------------------------------------------
def _strategies(board: Board, ink: Ink) -> Panel | None:
    known = board.strategies.get(board.latest)
    if known is None or not known.weights:
        return None
    budgets: Mapping[str, float] = board.budgets.get(board.latest, {}).get("strategy", {})
    names = sorted({*known.weights, *budgets})[:STRATEGIES_MAX]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(*(ink.text(title, "grey50") for title in ("strategy", "weight", "budget")))
    for name in names:
        weight, share = known.weights.get(name), budgets.get(name, 0.0)
        style = "bold red3" if name in known.drifted else "grey70"
        grid.add_row(
            ink.text(_cut(name), style),
            ink.text("·" if weight is None else f"{column(weight)} {weight:4.0%}"),
            ink.text(f"{column(share)} {share:4.0%}", _full(share)),
        )
    drift = "bold red3" if known.alert else "grey70"
    grid.add_row(ink.text("drift", "grey50"), ink.text(f"{column(known.drift)} {known.drift:4.0%}", drift))
    width = max(len("strategy"), *(len(_cut(name)) for name in names)) + 1 + 2 * 7
    return Panel(grid, width, 2 + len(names), _line(ink, "strategies", " ".join(_weighed(names, known.weights))))


def _weighed(names: list[str], weights: Mapping[str, float]) -> Iterator[str]:
    for name in names:
        weight = weights.get(name)
        yield f"{_cut(name)} {'·' if weight is None else f'{weight:.0%}'}"


# -- policy --------------------------------------------------------------------------------------------------------
def _policy(board: Board, ink: Ink) -> Panel | None:
    policy = board.policy
    if policy is None:
        return None
    rows = [
        ("mode", policy.mode),
        ("gate", f"{policy.gate}, {policy.decisions} scored"),
        ("earns", f"{_points(policy.advantage)} bp more"),
        ("within", f"{_points(policy.lower)} to {_points(policy.upper)}"),
        ("breaker", board.breaker.replace("_", " ") or "closed"),
        ("answers", _told(policy.answers)),
    ]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ink.text("policy", "grey50"), Text())
    for name, text in rows:
        grid.add_row(ink.text(name, "grey50"), ink.text(text, "grey70"))
    line = _line(ink, "policy", ", ".join(text for _, text in rows if text))
    return Panel(grid, 8 + max(len(text) for _, text in rows), 1 + len(rows), line)


def _points(ratio: float) -> str:
    """Return a share of the value in basis points."""
    return f"{1e4 * ratio:.1f}".replace("-", "−")


def _told(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(answers.items()))


# -- names ---------------------------------------------------------------------------------------------------------
def _line(ink: Ink, title: str, text: str) -> Text:
    shown = ink.text(f"{title} ", "grey50").append_text(ink.text(text, "grey70"))
    shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


def _coin(symbol: str) -> str:
    """Return the coin that a symbol is of: BTC of BTC-USD and of BTCUSDT."""
    name = symbol.replace("/", "-").partition("-")[0]
    for quote in QUOTES:
        if name.endswith(quote) and name != quote:
            name = name.removesuffix(quote)
            break
    return name[:COIN_WIDTH]


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"

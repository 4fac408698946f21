"""The portfolio panels: correlations, budgets, strategies, policy. Side by side if they fit, otherwise a line each."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.demo.correlation_tracker import CorrelationView
from streams.demo.dashboard import Dashboard
from streams.demo.terminal import Terminal, column

COINS_MAX = 12
"""Most symbols in the correlation and budget panels: the first by name."""
STRATEGIES_MAX = 8
COIN_WIDTH, NAME_WIDTH = 5, 14
CELL_WIDTH = 4
"""Of the correlation panel."""
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
"""(upper bound, style) of a correlation; from the last bound on the style is `HOTTEST`."""
HOTTEST = "bold white on red3"


class Panel(NamedTuple):
    """One panel, as a table and as a single line."""

    picture: Table
    width: int
    height: int
    line: Text


def draw(dashboard: Dashboard, terminal: Terminal, lines: int) -> RenderableType | None:
    """Return the panels, in at most `lines` lines where possible; None if there are none."""
    panels = [
        panel
        for panel in (
            _heat(dashboard, terminal),
            _budgets(dashboard, terminal),
            _strategies(dashboard, terminal),
            _policy(dashboard, terminal),
        )
        if panel
    ]
    if not panels:
        return None
    fitting = list(panels)
    while fitting and sum(panel.width + GAP for panel in fitting) - GAP > terminal.width:
        fitting.remove(max(fitting, key=lambda panel: panel.width))
    if max((panel.height for panel in fitting), default=0) + len(panels) - len(fitting) > lines:
        fitting = []
    parts: list[RenderableType] = []
    if fitting:
        row = Table.grid(padding=(0, GAP, 0, 0))
        row.add_row(*(panel.picture for panel in fitting))
        parts.append(row)
    return Group(*parts, *(panel.line for panel in panels if panel not in fitting))


# -- correlation ---------------------------------------------------------------------------------------------------
def _heat(dashboard: Dashboard, terminal: Terminal) -> Panel | None:
    view = dashboard.correlations
    if view is None or view.mean is None:
        return None
    names = [_coin(symbol) for symbol in view.symbols[:COINS_MAX]]
    grid = Table.grid()
    grid.add_column(width=COIN_WIDTH)
    for _ in names:
        grid.add_column(width=CELL_WIDTH, no_wrap=True, justify="right")
    grid.add_row(terminal.text("corr.", "grey50"), *(terminal.text(name[:3] + " ", "grey50") for name in names))
    for i, (name, row) in enumerate(zip(names, view.rows, strict=False)):
        cells = (_cell(rho, terminal, own=i == j) for j, rho in enumerate(row[: len(names)]))
        grid.add_row(terminal.text(name, "grey70"), *cells)
    grid.add_row(terminal.text("mean", "grey50"), _cell(view.mean, terminal, own=False))
    width = COIN_WIDTH + CELL_WIDTH * len(names)
    return Panel(grid, width, 2 + len(names), _heat_line(view, terminal))


def _cell(rho: float, terminal: Terminal, *, own: bool) -> Text:
    """Return a correlation in hundredths, coloured by its size."""
    if own:
        return terminal.text("·  ", "grey50")
    return terminal.text(f"{_hundredths(rho):>{CELL_WIDTH - 1}} ", _heat_of(rho))


def _heat_of(rho: float) -> str:
    return next((style for below, style in HEAT if rho < below), HOTTEST)


def _hundredths(rho: float) -> str:
    return f"{round(100 * rho)}".replace("-", "−")


def _heat_line(view: CorrelationView, terminal: Terminal) -> Text:
    pairs = combinations(range(len(view.symbols)), 2)
    i, j = max(pairs, key=lambda pair: view.rows[pair[0]][pair[1]])
    pair = f"{_coin(view.symbols[i])} {_coin(view.symbols[j])}"
    rho = view.rows[i][j]
    shown = _line(terminal, "correlation", f"{view.mean or 0.0:.2f} mean, {pair} ")
    return shown.append_text(terminal.text(f" {_hundredths(rho)} ", _heat_of(rho)))


# -- budgets -------------------------------------------------------------------------------------------------------
def _budgets(dashboard: Dashboard, terminal: Terminal) -> Panel | None:
    levels = dashboard.budgets.get(dashboard.latest)
    if levels is None:
        return None
    symbols = [(_coin(symbol), share) for symbol, share in sorted(levels["position"].items())]
    rows = [("portfolio", levels["portfolio"]["all"]), *symbols[:COINS_MAX]]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(terminal.text("budget", "grey50"), terminal.text("of its cap", "grey50"), Text())
    for name, share in rows:
        grid.add_row(
            terminal.text(name, "grey70"), terminal.gauge(share, _full(share)), terminal.text(f"{share:4.0%}", "bold")
        )
    line = _line(terminal, "budgets", " ".join(f"{name} {share:.0%}" for name, share in rows))
    return Panel(grid, len("portfolio") + 1 + 10 + 1 + 5, 1 + len(rows), line)


def _full(share: float) -> str:
    return "light_coral" if share > 0.98 else "khaki3" if share > 0.8 else "deep_sky_blue1"


# -- strategies ----------------------------------------------------------------------------------------------------
def _strategies(dashboard: Dashboard, terminal: Terminal) -> Panel | None:
    known = dashboard.strategies.get(dashboard.latest)
    if known is None or not known.weights:
        return None
    budgets: Mapping[str, float] = dashboard.budgets.get(dashboard.latest, {}).get("strategy", {})
    names = sorted({*known.weights, *budgets})[:STRATEGIES_MAX]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(*(terminal.text(title, "grey50") for title in ("strategy", "weight", "budget")))
    for name in names:
        weight, share = known.weights.get(name), budgets.get(name, 0.0)
        style = "bold red3" if name in known.drifted else "grey70"
        grid.add_row(
            terminal.text(_cut(name), style),
            terminal.text("·" if weight is None else f"{column(weight)} {weight:4.0%}"),
            terminal.text(f"{column(share)} {share:4.0%}", _full(share)),
        )
    drift = "bold red3" if known.alert else "grey70"
    grid.add_row(terminal.text("drift", "grey50"), terminal.text(f"{column(known.drift)} {known.drift:4.0%}", drift))
    width = max(len("strategy"), *(len(_cut(name)) for name in names)) + 1 + 2 * 7
    return Panel(grid, width, 2 + len(names), _line(terminal, "strategies", " ".join(_weighed(names, known.weights))))


def _weighed(names: list[str], weights: Mapping[str, float]) -> Iterator[str]:
    for name in names:
        weight = weights.get(name)
        yield f"{_cut(name)} {'·' if weight is None else f'{weight:.0%}'}"


# -- policy --------------------------------------------------------------------------------------------------------
def _policy(dashboard: Dashboard, terminal: Terminal) -> Panel | None:
    policy = dashboard.policy
    if policy is None:
        return None
    rows = [
        ("mode", policy.mode),
        ("gate", f"{policy.gate}, {policy.decisions} scored"),
        ("earns", f"{_points(policy.advantage)} bp more"),
        ("within", f"{_points(policy.lower)} to {_points(policy.upper)}"),
        ("breaker", dashboard.breaker.replace("_", " ") or "closed"),
        ("answers", _counts(policy.answers)),
    ]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(terminal.text("policy", "grey50"), Text())
    for name, text in rows:
        grid.add_row(terminal.text(name, "grey50"), terminal.text(text, "grey70"))
    line = _line(terminal, "policy", ", ".join(text for _, text in rows if text))
    return Panel(grid, 8 + max(len(text) for _, text in rows), 1 + len(rows), line)


def _points(ratio: float) -> str:
    """Return a ratio of portfolio value in basis points."""
    return f"{1e4 * ratio:.1f}".replace("-", "−")


def _counts(answers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(answers.items()))


# -- names ---------------------------------------------------------------------------------------------------------
def _line(terminal: Terminal, title: str, text: str) -> Text:
    shown = terminal.text(f"{title} ", "grey50").append_text(terminal.text(text, "grey70"))
    shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


def _coin(symbol: str) -> str:
    """Return a symbol's base coin: BTC for BTC-USD and for BTCUSDT."""
    name = symbol.replace("/", "-").partition("-")[0]
    for quote in QUOTES:
        if name.endswith(quote) and name != quote:
            name = name.removesuffix(quote)
            break
    return name[:COIN_WIDTH]


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"

"""Who earned what: each strategy's share of the positions, costs and funding of a portfolio."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streams.backtest.account import Fill

CellKey = tuple[str, str, str]
"""(portfolio, strategy, symbol)"""


class CellResult(NamedTuple):
    """What one strategy earned on one symbol, USD."""

    portfolio_id: str
    strategy_id: str
    symbol: str
    profit_usd: float
    """Net of costs and funding."""
    costs_usd: float
    """Fees and slippage."""
    funding_usd: float
    traded_usd: float
    trades: int


class _Share:
    """One cell's part of a position, and the money it has taken and given."""

    __slots__ = ("cash", "costs", "funding", "quantity", "traded", "trades")

    def __init__(self) -> None:
        self.quantity = self.cash = self.costs = self.funding = self.traded = 0.0
        self.trades = 0


class Attribution:
    """Splits each symbol's position between strategies as the newest allocation splits its target.

    Parts sum to the position, profits to the portfolio's. The costs of a trade are split by how much each part changes.
    """

    def __init__(self, prices: Mapping[str, float]) -> None:
        self._prices = prices
        self._wanted: dict[str, Mapping[tuple[str, str], int]] = {}
        self._shares: dict[CellKey, _Share] = {}
        self._of: dict[tuple[str, str], list[CellKey]] = {}
        """Cells of each portfolio and symbol."""

    def take(self, portfolio: str, cells: Sequence[tuple[str, str]], cents: Sequence[int]) -> None:
        """Note the targets of a portfolio's cells."""
        self._wanted[portfolio] = dict(zip(cells, cents, strict=True))

    def fill(self, portfolio: str, fill: Fill, held: float) -> None:
        """Split a position after a fill, and the cash and costs that it took."""
        wanted = self._wanted.get(portfolio, {})
        sizes = {strategy: size for (strategy, symbol), size in wanted.items() if symbol == fill.symbol and size}
        for strategy in sizes:
            self._share(portfolio, strategy, fill.symbol)
        keys = self._of.get((portfolio, fill.symbol), [])
        parts = {key: float(sizes.get(key[1], 0)) for key in keys}
        if not any(parts.values()):  # the targets are 0, and some of the position is left
            parts = {key: self._shares[key].quantity for key in keys}
        total = sum(parts.values())
        after = {key: held * part / total if total else 0.0 for key, part in parts.items()}
        moved = sum(abs(after[key] - self._shares[key].quantity) for key in keys)
        for key in keys:
            share = self._shares[key]
            change = after[key] - share.quantity
            if change:
                costs = (fill.fee_usd + fill.slippage_usd) * abs(change) / moved
                share.cash -= change * fill.price + costs
                share.costs += costs
                share.traded += abs(change) * fill.price
                share.trades += 1
                share.quantity = after[key]

    def _share(self, portfolio: str, strategy: str, symbol: str) -> None:
        key = (portfolio, strategy, symbol)
        if key not in self._shares:
            self._shares[key] = _Share()
            self._of.setdefault((portfolio, symbol), []).append(key)

    def fund(self, portfolio: str, symbol: str, rate: float) -> None:
        """Split a funding payment by position."""
        for key in self._of.get((portfolio, symbol), ()):
            share = self._shares[key]
            paid = share.quantity * self._prices[symbol] * rate
            share.cash -= paid
            share.funding += paid

    def profits(self) -> Iterator[tuple[CellKey, float]]:
        """Yield the profit of every cell at the current prices, USD."""
        for key, share in self._shares.items():
            value = share.quantity * self._prices[key[2]] if share.quantity else 0.0
            yield key, share.cash + value

    def results(self) -> list[CellResult]:
        """Return every cell's result, sorted by cell."""
        profits = dict(self.profits())
        return [
            CellResult(*key, profits[key], share.costs, share.funding, share.traded, share.trades)
            for key, share in sorted(self._shares.items())
        ]

"""The broker of a backtest: fills targets at the open of the next candle, pays costs and funding, reports positions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from engines.pipeline.decide import Decision
from streams.backtest.account import Account
from streams.backtest.attribution import Attribution
from streams.backtest.funding import Funding
from streams.history.candle_row import SECOND_NS
from streams.history.feed import FeedEvent

FILL_NS: Final = 2 * SECOND_NS
"""Delay of fills, and of their report, after a candle's open: what was decided until then is filled at the open."""
REPORT_NS: Final = 3_600 * SECOND_NS
"""Positions are reported after fills, and at least this often while something is held."""


class Trading(NamedTuple):
    """How targets are filled."""

    fee_ratio: float
    slippage_ratio: float
    delay_s: float = 0.0
    """From a decision to the earliest fill."""


class Trade(NamedTuple):
    """One fill of one portfolio."""

    time_ns: int
    portfolio_id: str
    sequence: int
    """The allocation that asked for it."""
    symbol: str
    quantity: float
    price: float
    fee_usd: float
    slippage_usd: float


class BacktestBroker:
    """The accounts of all portfolios. `prices` is shared with them: the last close, or open, of each symbol."""

    def __init__(self, trading: Trading, initial_usd: float) -> None:
        self.trading, self.initial_usd = trading, initial_usd
        self.prices: dict[str, float] = {}
        self.accounts: dict[str, Account] = {}
        self.attribution = Attribution(self.prices)
        self.trades: list[Trade] = []
        self._reported_ns: dict[str, int] = {}

    def take(self, decision: Decision, sequence: int, now_ns: int) -> None:
        """Take an allocation: replace the portfolio's orders, and note whose targets they are."""
        portfolio = decision.portfolio_id
        account = self.accounts.get(portfolio)
        if account is None:
            account = self.accounts[portfolio] = Account(
                self.initial_usd, self.prices, self.trading.fee_ratio, self.trading.slippage_ratio
            )
        due_s = now_ns / SECOND_NS + self.trading.delay_s
        account.aim(sequence, decision.trigger.kind, decision.quantities, decision.unmanaged, due_s)
        self.attribution.take(portfolio, decision.holdings.cells, decision.cents)

    def fill(self, opened: Sequence[tuple[str, float]], open_ns: int) -> list[FeedEvent]:
        """Fill due orders of the symbols whose candles open; return the reports of positions that follow."""
        self.prices.update(opened)
        at_ns, symbols = open_ns + FILL_NS, {symbol for symbol, _ in opened}
        reports = []
        for portfolio, account in self.accounts.items():
            filled = self._filled(portfolio, account, symbols, at_ns)
            if filled or (account.held and at_ns - self._reported_ns.get(portfolio, 0) >= REPORT_NS):
                self._reported_ns[portfolio] = at_ns
                reports.append(_report(account, portfolio, at_ns))
        return reports

    def _filled(self, portfolio: str, account: Account, symbols: Collection[str], at_ns: int) -> bool:
        due = [symbol for symbol in account.due(at_ns / SECOND_NS) if symbol in symbols]
        for symbol in due:
            sequence = account.orders[symbol].sequence
            fill = account.fill(symbol)
            self.attribution.fill(portfolio, fill, account.held.get(symbol, 0.0))
            self.trades.append(Trade(at_ns, portfolio, sequence, *fill))
        return bool(due)

    def fund(self, payment: Funding) -> None:
        """Pay a funding rate on all positions in its symbol."""
        for portfolio, account in self.accounts.items():
            if account.held.get(payment.symbol):
                account.fund(payment.symbol, payment.rate)
                self.attribution.fund(portfolio, payment.symbol, payment.rate)

    def profit(self) -> float:
        """Return what all portfolios have earned, USD. A position always has a price, at least that of its fill."""
        return sum((account.equity or 0.0) - self.initial_usd for account in self.accounts.values())

    def exposures(self) -> Iterator[tuple[str, float]]:
        """Yield (symbol, signed notional in USD) of every position."""
        for account in self.accounts.values():
            for symbol, quantity in account.held.items():
                yield symbol, quantity * self.prices[symbol]


def _report(account: Account, portfolio: str, at_ns: int) -> FeedEvent:
    fields: Mapping[str, Any] = account.report(portfolio, at_ns)
    return FeedEvent(at_ns, "positions", portfolio.encode(), orjson.dumps(fields))

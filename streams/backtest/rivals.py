"""Simple ways to size the same signals, traded beside at the same prices, costs and caps.

- fixed fraction: 5 % of the value for every live claim;
- volatility target: every live claim at 10 % volatility a year;
- full Kelly: every claim at its word, conf·e/s².
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from types import MappingProxyType
from typing import Final, NamedTuple

from engines.parameters import DecisionParams
from schemas.signal import TacticalSignal
from schemas.vocabulary import SIDE
from streams.backtest.account import Account
from streams.backtest.broker import Trading
from streams.backtest.funding import Funding
from streams.history.candle_row import SECOND_NS

YEAR_S: Final = 365.25 * 86_400
FIXED_FRACTION: Final = 0.05
TARGET_VOLATILITY: Final = 0.10


class LiveClaim(NamedTuple):
    """A signal's claim until it expires, with the defaults of the settings where it states nothing."""

    side: int
    edge: float
    """Confidence times claimed return."""
    volatility: float
    horizon_s: float
    until_ns: int


def fixed_fraction(_claim: LiveClaim) -> float:
    """Return 5 % of the value, whatever is claimed."""
    return FIXED_FRACTION


def volatility_target(claim: LiveClaim) -> float:
    """Return the share of the value whose volatility is 10 % a year."""
    return TARGET_VOLATILITY / (claim.volatility * sqrt(YEAR_S / claim.horizon_s))


def full_kelly(claim: LiveClaim) -> float:
    """Return the growth-optimal share if the claim is true."""
    return claim.edge / (claim.volatility * claim.volatility)


SIZINGS: Final[Mapping[str, Callable[[LiveClaim], float]]] = MappingProxyType(
    {"fixed fraction": fixed_fraction, "volatility target": volatility_target, "full Kelly": full_kelly}
)

StrategySymbol = tuple[str, str]
"""(strategy, symbol)"""


class Rival:
    """One sizing: its claims, accounts and profit over time."""

    def __init__(self, name: str, params: DecisionParams, trading: Trading, prices: dict[str, float]) -> None:
        self.name, self._size, self._params = name, SIZINGS[name], params
        self._trading, self._prices = trading, prices
        self._claims: dict[str, dict[StrategySymbol, LiveClaim]] = {}
        self._dirty: set[str] = set()
        self._expires_ns = 1 << 62
        self.accounts: dict[str, Account] = {}
        self.profit, self.costs, self.gross = array("d"), array("d"), array("d")

    def signal(self, message: TacticalSignal) -> None:
        """Take a signal: a BUY or SELL replaces the strategy's claim, a HOLD keeps it."""
        portfolio = message.portfolio_id
        side = SIDE[message.action]
        if portfolio not in self.accounts:
            cash = self._params.portfolio.initial_value_usd
            self.accounts[portfolio] = Account(
                cash, self._prices, self._trading.fee_ratio, self._trading.slippage_ratio
            )
            self._claims[portfolio] = {}
        if not side:
            return
        defaults = self._params.position_sizing.defaults
        volatility = message.predicted_volatility or defaults.volatility
        stated = message.expected_return
        edge = defaults.expected_sharpe * volatility if stated is None else abs(stated) * message.confidence
        valid_s = message.valid_for_s or defaults.validity_horizons * message.horizon_s
        until_ns = message.timestamp_ns + int(valid_s * SECOND_NS)
        claim = LiveClaim(side, edge, volatility, message.horizon_s, until_ns)
        self._claims[portfolio][message.strategy_id, message.symbol] = claim
        self._expires_ns = min(self._expires_ns, until_ns)
        self._dirty.add(portfolio)

    def aim(self, now_ns: int) -> int:
        """Drop expired claims, set targets where claims have changed; return when the next claim expires."""
        if now_ns >= self._expires_ns:
            self._expire(now_ns)
        for portfolio in sorted(self._dirty):
            account = self.accounts[portfolio]
            wanted = self._wanted(account, self._claims[portfolio])
            account.aim(account.sequence + 1, "signal", wanted, (), now_ns / SECOND_NS + self._trading.delay_s)
        self._dirty.clear()
        return self._expires_ns

    def _expire(self, now_ns: int) -> None:
        for portfolio, claims in self._claims.items():
            over = [cell for cell, claim in claims.items() if claim.until_ns <= now_ns]
            for cell in over:
                del claims[cell]
                self._dirty.add(portfolio)
        every = (claim.until_ns for claims in self._claims.values() for claim in claims.values())
        self._expires_ns = min(every, default=1 << 62)

    def _wanted(self, account: Account, claims: Mapping[StrategySymbol, LiveClaim]) -> dict[str, float]:
        """Return quantities by symbol; changes within the no-trade band are left out."""
        value = max(account.equity or 0.0, 0.0)
        weights = capped({cell: claim.side * self._size(claim) for cell, claim in claims.items()}, self._params)
        wanted = {}
        for symbol, weight in weights.items():
            before, price = account.targets.get(symbol, 0.0), self._prices.get(symbol)
            if price is None:
                continue
            quantity = weight * value / price
            band = self._params.position_sizing.band_ratio * max(abs(quantity), abs(before))
            within = quantity * before > 0 and abs(quantity - before) <= band
            wanted[symbol] = before if within else quantity
        return wanted

    def fill(self, opened: Sequence[tuple[str, float]], now_s: float) -> None:
        """Fill due orders of the symbols whose candles open; the prices are those of the open already."""
        symbols = {symbol for symbol, _ in opened}
        for account in self.accounts.values():
            for symbol in account.due(now_s):
                if symbol in symbols:
                    account.fill(symbol)

    def fund(self, payment: Funding) -> None:
        """Pay a funding rate on the positions in its symbol."""
        for account in self.accounts.values():
            account.fund(payment.symbol, payment.rate)

    def record(self) -> None:
        """Append profit, costs and gross exposure at the current prices."""
        accounts = self.accounts.values()
        initial_usd = self._params.portfolio.initial_value_usd
        self.profit.append(sum((each.equity or 0.0) - initial_usd for each in accounts))
        self.costs.append(sum(each.fees_usd + each.slippage_usd for each in accounts))
        self.gross.append(sum(abs(q) * self._prices[s] for each in accounts for s, q in each.held.items()))

    @property
    def traded_usd(self) -> float:
        """Sum of the notionals of all fills."""
        return sum(each.traded_usd for each in self.accounts.values())


def capped(wanted: Mapping[StrategySymbol, float], params: DecisionParams) -> dict[str, float]:
    """Return the net share of each symbol: every cell, symbol, strategy and the whole cut to the caps of the settings.

    >>> capped({("a", "X"): 6.0, ("b", "X"): -6.0, ("c", "X"): 6.0}, DecisionParams())["X"]
    0.05
    """
    limits = params.risk_management
    lowest = -limits.max_position_pct if limits.allow_short else 0.0
    sizes = {cell: max(lowest, min(limits.max_position_pct, size)) for cell, size in wanted.items()}
    for part, cap in (
        (1, limits.max_position_pct),
        (0, limits.max_strategy_allocation),
        (None, min(limits.max_portfolio_allocation, limits.max_leverage)),
    ):
        gross: dict[str, float] = {}
        for cell, size in sizes.items():
            name = "" if part is None else cell[part]
            gross[name] = gross.get(name, 0.0) + abs(size)
        for cell in sizes:
            total = gross["" if part is None else cell[part]]
            sizes[cell] *= min(1.0, cap / total) if total else 1.0
    nets: dict[str, float] = {}
    for (_, symbol), size in sizes.items():
        nets[symbol] = nets.get(symbol, 0.0) + size
    return {symbol: round(net, 12) for symbol, net in nets.items()}

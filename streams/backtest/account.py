"""A paper account: positions, orders and cash of one portfolio. No clock, no randomness, no broker."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Order(NamedTuple):
    """The target of one symbol."""

    quantity: float
    sequence: int
    """Sequence of the first allocation that requested it."""
    due_s: float
    """Fill time, s."""


class Fill(NamedTuple):
    """One trade."""

    symbol: str
    quantity: float
    """Signed change of the position, coins."""
    price: float
    """Price before slippage, USD."""
    fee_usd: float
    slippage_usd: float


class Account:
    """Positions, open orders and cash of one portfolio. The caller supplies prices and times.

    `fee_ratio` and `slippage_ratio` are paid on the notional of each fill: as a fee, and as a worse price.
    """

    def __init__(
        self, cash: float, prices: dict[str, float], fee_ratio: float = 0.0, slippage_ratio: float = 0.0
    ) -> None:
        self.cash, self.prices = cash, prices
        self.fee_ratio, self.slippage_ratio = fee_ratio, slippage_ratio
        self.held: dict[str, float] = {}
        self.targets: dict[str, float] = {}
        self.orders: dict[str, Order] = {}
        self.sequence = 0
        self.fills = 0
        self.traded_usd = self.fees_usd = self.slippage_usd = self.funding_usd = 0.0
        self.allocations: dict[str, int] = {}
        """Count by kind of trigger."""
        self.asked_usd: dict[str, float] = {}
        """Sum of |change of target|, by kind of trigger."""

    def take(self, allocation: dict[str, Any], due_s: float) -> None:
        """Replace all orders by those of an allocation, due at `due_s`; unmanaged symbols are left alone."""
        unmanaged = allocation.get("unmanaged", ())
        wanted = {name: each["quantity"] for name, each in allocation["targets"].items() if name not in unmanaged}
        self.aim(allocation["sequence"], allocation["trigger"]["kind"], wanted, unmanaged, due_s)

    def aim(
        self, sequence: int, kind: str, wanted: Mapping[str, float], unmanaged: Collection[str], due_s: float
    ) -> None:
        """Replace all orders by those that lead to the quantities of `wanted`; an absent symbol's is 0."""
        self.sequence = sequence
        self.allocations[kind] = self.allocations.get(kind, 0) + 1
        for symbol in sorted({**wanted, **self.targets, **self.held}):
            if symbol in unmanaged:
                self.orders.pop(symbol, None)
                continue
            change = abs(wanted.get(symbol, 0.0) - self.targets.get(symbol, 0.0)) * self.prices.get(symbol, 0.0)
            self.asked_usd[kind] = self.asked_usd.get(kind, 0.0) + change
            self._order(symbol, wanted.get(symbol, 0.0), due_s)
        self.targets = dict(wanted)

    def _order(self, symbol: str, quantity: float, due_s: float) -> None:
        before = self.orders.pop(symbol, None)
        if quantity == self.held.get(symbol, 0.0):
            return
        if before is None:
            self.orders[symbol] = Order(quantity, self.sequence, due_s)
        elif before.quantity == quantity:
            self.orders[symbol] = before
        else:
            self.orders[symbol] = before._replace(quantity=quantity, sequence=self.sequence)

    def due(self, now_s: float) -> list[str]:
        """Return the symbols with a due order and a known price."""
        return [name for name, each in self.orders.items() if each.due_s <= now_s and name in self.prices]

    def fill(self, symbol: str, share: float = 1.0, rest_due_s: float = 0.0) -> Fill:
        """Fill a share of an order at the current price; the rest stays open until `rest_due_s`."""
        order, now = self.orders.pop(symbol), self.held.get(symbol, 0.0)
        after = order.quantity if share >= 1.0 else now + (order.quantity - now) * share
        price = self.prices[symbol]
        usd = abs(after - now) * price
        fee, slippage = usd * self.fee_ratio, usd * self.slippage_ratio
        self.cash -= (after - now) * price + fee + slippage
        self.traded_usd += usd
        self.fees_usd += fee
        self.slippage_usd += slippage
        self.fills += 1
        self.held[symbol] = after
        if after != order.quantity:
            self.orders[symbol] = order._replace(due_s=rest_due_s)
        elif not after:
            del self.held[symbol]
        return Fill(symbol, after - now, price, fee, slippage)

    def fund(self, symbol: str, rate: float) -> float:
        """Pay a funding rate on the position in a symbol; return what was paid in USD, negative if received."""
        paid = self.held.get(symbol, 0.0) * self.prices.get(symbol, 0.0) * rate
        self.cash -= paid
        self.funding_usd += paid
        return paid

    @property
    def applied(self) -> int:
        """The last sequence up to which no order is open."""
        return min((order.sequence - 1 for order in self.orders.values()), default=self.sequence)

    @property
    def equity(self) -> float | None:
        """Cash plus market value of the positions; None while a position has no price."""
        if not self.held.keys() <= self.prices.keys():
            return None
        return self.cash + sum(quantity * self.prices[symbol] for symbol, quantity in self.held.items())

    def report(self, portfolio: str, now_ns: int) -> dict[str, Any]:
        """Return a message for `positions`, without equity if it is unknown."""
        fields = {"portfolio_id": portfolio, "timestamp_ns": now_ns, "quantities": dict(self.held)}
        equity = self.equity
        return {**fields, "as_of_sequence": self.applied} | ({} if equity is None else {"equity": round(equity, 2)})

"""A closed loop in memory: the driver decides, an account fills and reports, each in its own time.

What happens to fills and reports on the way is drawn from a seed, so that Hypothesis shrinks numbers, not fates.
"""

import heapq
import random
from typing import Any, NamedTuple

from hypothesis import strategies as st
from worlds import PRICES, SECOND_NS, SYMBOLS, Driver, signal, tick

from streams.backtest.account import Account

STRATEGIES = ("carry", "momentum", "reversion")
PARTS_MAX = 3
"""An order that was filled in so many parts is filled whole."""
TICK_S = 20.0


class Plan(NamedTuple):
    """How an execution engine behaves, and what the road to it does."""

    fill_s: float
    """Fills take anything up to it."""
    road_s: float
    """Reports are on their way for anything up to it, and overtake each other."""
    lose: float
    double: float
    partial: float
    fee: float
    as_of: bool
    """Whether reports say as of which allocation they are."""
    equity: bool
    every_s: float
    """Reports come so often as well; 0: after fills alone."""
    seed: int


plans = st.builds(
    Plan,
    fill_s=st.sampled_from((0.0, 0.5, 5.0, 29.0, 60.0)),
    road_s=st.sampled_from((0.0, 0.5, 5.0, 31.0, 60.0)),
    lose=st.sampled_from((0.0, 0.3, 0.9)),
    double=st.sampled_from((0.0, 0.5)),
    partial=st.sampled_from((0.0, 0.5, 1.0)),
    fee=st.sampled_from((0.0, 0.0005, 0.002)),
    as_of=st.booleans(),
    equity=st.booleans(),
    every_s=st.sampled_from((0.0, 7.0)),
    seed=st.integers(0, 2**32),
)
claims = st.fixed_dictionaries(
    {
        "strategy_id": st.sampled_from(STRATEGIES),
        "symbol": st.sampled_from(SYMBOLS),
        "action": st.sampled_from(("buy", "sell")),
        "confidence": st.sampled_from((0.55, 0.8, 0.95)),
        "expected_return": st.sampled_from((0.004, 0.008, 0.012, 0.02)),
        "predicted_volatility": st.sampled_from((0.02, 0.03)),
    }
)
asked = st.lists(st.tuples(claims, st.sampled_from((0.0, 0.2, 3.0, 35.0, 70.0))), min_size=1, max_size=10)
"""Signals, and the seconds until the next."""


class Loop:
    """A driver and the account of its portfolio `main`."""

    def __init__(self, plan: Plan, driver: Driver | None = None) -> None:
        self.plan, self.driver = plan, driver or Driver(partitions=1)
        self.chance = random.Random(plan.seed)
        self.wander = 0.0
        """Prices are drawn within so much of where they began."""
        self.prices = dict(PRICES)
        self.account = Account(100_000.0, self.prices, plan.fee)
        self.allocations: list[dict[str, Any]] = []
        self.changes: list[tuple[str, str, float]] = []
        """(kind of the trigger, symbol, |change of the target| in USD)"""
        self.events: list[tuple[int, int, str, Any]] = []
        self.numbers = 0
        self.parts: dict[str, int] = {}
        self.values: list[float] = [100_000.0]
        """Every equity that was reported, lost reports included."""
        self.later(0.0, "price")
        if plan.every_s:
            self.later(plan.every_s, "report")

    def later(self, seconds: float, kind: str, what: Any = None) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (self.driver.now_ns + int(seconds * SECOND_NS), self.numbers, kind, what))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end_ns = self.driver.now_ns + int(seconds * SECOND_NS)
        self.read()
        while self.events and self.events[0][0] <= end_ns:
            at_ns, _, kind, what = heapq.heappop(self.events)
            self.move(at_ns)
            getattr(self, f"on_{kind}")(what)
            self.driver.run()
            self.read()
        self.move(end_ns)

    def move(self, to_ns: int) -> None:
        self.driver.advance((to_ns - self.driver.now_ns) / SECOND_NS)
        self.driver.now_ns = to_ns
        self.read()

    def signal(self, claim: dict[str, Any]) -> None:
        """Let a strategy claim something for a day."""
        self.numbers += 1
        sign = 1 if claim["action"] == "buy" else -1
        given = {**claim, "expected_return": sign * claim["expected_return"], "valid_for_s": 86_400, "risk_score": 0.0}
        body = signal(self.driver.now_ns, signal_id=f"s-{self.numbers}", horizon_s=86_400.0, **given)
        self.driver.publish("signals", body)
        self.driver.run()
        self.read()

    def read(self) -> None:
        """Give the account what was published since."""
        for fields in self.driver.allocations("main")[len(self.allocations) :]:
            self.changes += changes(self.allocations[-1:], fields, self.prices)
            self.allocations.append(fields)
            wait_s = self.chance.uniform(0.0, self.plan.fill_s)
            self.account.take(fields, self.now_s + wait_s)
            self.later(wait_s, "fill")

    @property
    def now_s(self) -> float:
        return self.driver.now_ns / SECOND_NS

    # -- events --------------------------------------------------------------------------------------------------------
    def on_price(self, _what: None) -> None:
        for symbol in SYMBOLS:
            price = PRICES[symbol] * (1.0 + self.chance.uniform(-self.wander, self.wander))
            self.prices[symbol] = price
            self.driver.publish("prices", tick(self.driver.now_ns, symbol, price))
        self.later(TICK_S, "price")

    def on_fill(self, _what: None) -> None:
        due = self.account.due(self.now_s + 1e-3)
        for symbol in due:
            self.parts[symbol] = self.parts.get(symbol, 0) + 1
            whole = self.parts[symbol] > PARTS_MAX or self.chance.random() >= self.plan.partial
            wait_s = self.chance.uniform(0.0, self.plan.fill_s)
            self.account.fill(symbol, 1.0 if whole else self.chance.uniform(0.1, 0.9), self.now_s + wait_s)
            if whole:
                self.parts[symbol] = 0
            else:
                self.later(wait_s, "fill")
        if due:
            self.tell()

    def on_report(self, _what: None) -> None:
        self.tell()
        self.later(self.plan.every_s, "report")

    def tell(self) -> None:
        """Send a report on its way, which may end nowhere, or twice at its end."""
        told = self.account.report("main", self.driver.now_ns)
        if not self.plan.as_of:
            del told["as_of_sequence"]
        if self.plan.equity:
            self.values.append(told["equity"])
        else:
            del told["equity"]
        if self.chance.random() < self.plan.lose:
            return
        for _ in range(1 + (self.chance.random() < self.plan.double)):
            self.later(self.chance.uniform(0.0, self.plan.road_s), "positions", told)

    def on_positions(self, told: dict[str, Any]) -> None:
        self.driver.publish("positions", told)

    # -- what came of it -----------------------------------------------------------------------------------------------
    def asked_usd(self, kinds: tuple[str, ...] = ("signal",)) -> float:
        return sum(usd for kind, _, usd in self.changes if kind in kinds)

    def moved_by_others(self, symbol: str) -> float:
        """Return by how much targets of a symbol moved for anything but signals, in USD."""
        return sum(usd for kind, name, usd in self.changes if name == symbol and kind != "signal")

    def largest_usd(self, symbol: str) -> float:
        """Return the largest target that a symbol ever had, in USD."""
        found = [each["targets"].get(symbol, {"quantity": 0.0})["quantity"] for each in self.allocations]
        return max(map(abs, found), default=0.0) * self.prices[symbol]


def changes(before: list[dict[str, Any]], fields: dict[str, Any], prices: dict[str, float]) -> list[tuple[Any, ...]]:
    """Return what an allocation changed: (kind of the trigger, symbol, USD)."""
    was = {name: each["quantity"] for each_before in before for name, each in each_before["targets"].items()}
    now = {name: each["quantity"] for name, each in fields["targets"].items()}
    kind = fields["trigger"]["kind"]
    return [
        (kind, name, abs(now.get(name, 0.0) - was.get(name, 0.0)) * prices[name])
        for name in sorted({**was, **now})
        if now.get(name, 0.0) != was.get(name, 0.0)
    ]

"""The world that the campaign hurts: a live book of three strategies and five coins, its feeds, and who fills it.

Time is scaled down: bars of a minute, horizons of five, so that volatilities and calibrations are known after half an
hour. `Feeds` publishes what producers would; every message passes a `Spoil`, which may change, delay or drop it.
"""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml
from worlds import KELLY, with_

from config.policy import RlSettings
from config.watch import FileWatch
from engines.models.circuit_breaker import Breaker
from engines.parameters import DecisionParams
from engines.state.records import Gate
from streams.backtest.account import Account
from streams.driver import DEADLINE_S, Driver
from streams.journal.entries import TOPIC as JOURNAL
from streams.monitoring.metrics import Metrics
from streams.policy.adapters import Adapter, Predict
from streams.policy.answer import NoAnswer
from streams.policy.client import PolicyClient
from streams.policy.http_transport import Link, Reply
from streams.processing.immediate import result_of
from streams.processing.ports import Send
from streams.worker.hot_reload import Reload
from streams.worker.policy import breaker_alert

COINS = {"ADA-USD": 0.52, "BNB-USD": 310.0, "BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0}
SIDES = {"ADA-USD": -1, "BNB-USD": 1, "BTC-USD": 1, "ETH-USD": 1, "SOL-USD": -1}
STRATEGIES = ("carry", "momentum", "reversion")
BATCHED, SINGLE = ("ADA-USD", "BNB-USD", "BTC-USD"), ("ETH-USD", "SOL-USD")
"""Coins whose prices come in one message, and one by one."""
ACTOR = "momentum"
"""The strategy whose messages are hurt."""
CASH_USD = 100_000.0

STEP_S = 10
STEPS_A_MINUTE = 6
HORIZON_S = 300.0
WARM_STEPS = 204
"""34 minutes: 24 bars for volatilities, and five or six outcomes of each cell."""
SIGMA = 0.0095
"""Volatility of a coin over the horizon."""
EDGE = 0.0042
"""What strategies claim; four fifths of it (their confidence) is true."""
CONFIDENCE = 0.8

SCALED = with_(
    DecisionParams(),
    (f"{KELLY}.kelly_fraction", 0.004),
    ("market.bar_s", 60),
    ("risk_management.cascade_levels.half_life_s", 180.0),
    ("risk_management.cascade_levels.max_reading_age_s", 1_440.0),
    ("portfolio.report_due_s", 5.0),
    ("rl.enabled", True),
    ("rl.mode", "live"),
)
"""Defaults, with times a sixtieth of what they are, and a small share of Kelly, so that no cap hides a fault."""
OPEN = Gate(status="open", windows=500, lower=0.1, difference_square_sum=0.01)
"""The policy's gate as it is after 500 windows; that many are not played here."""


class Message(NamedTuple):
    """What a producer is about to send."""

    input: str
    topic: str
    key: bytes | None
    body: dict[str, Any]
    subject: str
    """The coin that it is about, "" where it is about all."""
    strategy: str = ACTOR

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is one of a series of."""
        return self.input, self.strategy, self.subject


class Sending(NamedTuple):
    """Bytes on their way."""

    after_steps: int
    value: bytes


Spoil = Callable[[Message, int], list[Sending]]
"""What becomes of a message that is sent in a step."""


def encoded(message: Message) -> bytes:
    """Return what its producer writes: JSON, or YAML in the settings file."""
    if message.input == "settings":
        return yaml.safe_dump(message.body).encode()
    return orjson.dumps(message.body)


def whole(message: Message, _step: int) -> list[Sending]:
    """No fault: the message arrives once, at once, as it is."""
    return [Sending(0, encoded(message))]


@cache
def paths(steps: int = 600) -> list[dict[str, float]]:
    """Return the price of every coin at every half step: the trend that strategies see, and noise around it."""
    chance = random.Random(14)
    drift, spread = CONFIDENCE * EDGE * STEP_S / HORIZON_S / 2, SIGMA * (1.5 * 60.0 / HORIZON_S) ** 0.5
    trends, found = dict(COINS), []
    for _ in range(2 * steps):
        trends = {name: price * (1 + SIDES[name] * drift) for name, price in trends.items()}
        found.append({name: price * (1 + chance.uniform(-spread, spread)) for name, price in trends.items()})
    return found


class Endpoint(Link):
    """A policy endpoint that is reached without a network; what it says passes the spoil."""

    def __init__(self, say: Callable[[dict[str, Any]], bytes]) -> None:
        super().__init__("http://policy.invalid/predict")
        self._say = say

    async def call(self, _method: str, _path: str, body: bytes | None, _timeout_s: float) -> Reply:
        return Reply(self._say(orjson.loads(body or b"")), "policy")


class World(Driver):
    """A driver with its feeds, the account that fills its allocations, its policy and its settings file."""

    def __init__(self, spoil: Spoil = whole) -> None:
        self.spoil = spoil
        self.step_number = 0
        self.account = Account(CASH_USD, {})
        self.said: dict[tuple[str, str, str], Message] = {}
        """The last message of each series, before any fault."""
        self.late: list[tuple[int, str, bytes | None, bytes]] = []
        """(step, topic, key, value) of what is on its way."""
        self.claims: list[tuple[int, dict[str, Any], float]] = []
        """(step, signal, price) of claims whose outcome is due."""
        self.taken = 0
        self.published: list[dict[str, float]] = []
        """The targets of every allocation since the world began or was forked, in coins."""
        self.reload: Reload | None = None
        self.file: Path | None = None
        super().__init__(
            SCALED, partitions=1, metrics=Metrics(clock=lambda: self.now_ns), policy=Predict(Endpoint(self.advise))
        )

    def fork(self, spoil: Spoil) -> "World":
        """Return a world that goes on from here by itself: a worker that recovers from this one's checkpoint."""
        other = World(spoil)
        other.cluster, other.stores = deepcopy(self.cluster), deepcopy(self.stores)
        other.committed, other.cursors = dict(self.committed), dict(self.cursors)
        other.now_ns, other.step_number, other.taken = self.now_ns, self.step_number, self.taken
        other.published = self.published[-1:]
        other.account, other.claims, other.late = deepcopy(self.account), list(self.claims), list(self.late)
        other.start()
        return other

    def _policy_client(self, policy: Adapter) -> PolicyClient:
        """Return a client as the worker makes it: its breaker raises alerts."""

        def tell(before: Breaker, after: Breaker) -> None:
            self.cluster.publish(breaker_alert(before.status, after.status, RlSettings(), self.now_ns))

        client = super()._policy_client(policy)
        return PolicyClient(
            policy,
            timeout_s=client.timeout_s,
            params=client.params,
            clock=lambda: self.now_ns,
            breaker_clock=lambda: self.now_ns,
            observe=tell,
        )

    # -- feeds ---------------------------------------------------------------------------------------------------------
    def pass_step(self) -> None:
        """Let ten seconds pass: prices in a batch and one by one, readings, signals, outcomes, orders, reports."""
        self.arrive()
        self.settings()
        self.run()
        self.prices_at(2 * self.step_number)
        self.say(Message("batch", "prices", None, {"ticks": self.ticks(BATCHED)}, ""))
        if self.step_number % 3 == 0:
            self.readings()
        self.signals()
        self.outcomes()
        if self.step_number % 3 == 1:
            self.order()
        self.advance(STEP_S / 2)
        self.fill()
        self.prices_at(2 * self.step_number + 1)
        for tick in self.ticks(SINGLE):
            self.say(Message("tick", "prices", None, tick, tick["symbol"]))
        self.report()
        self.advance(STEP_S / 2)
        self.fill()
        self.step_number += 1

    def say(self, message: Message) -> None:
        """Publish what the spoil leaves of a message."""
        self.said[message.name] = message
        for after, value in self.spoil(message, self.step_number):
            if after:
                self.late.append((self.step_number + after, message.topic, message.key, value))
            else:
                self.publish(message.topic, value, message.key)

    def arrive(self) -> None:
        """Publish what was on its way until now."""
        due = [each for each in self.late if each[0] <= self.step_number]
        self.late = [each for each in self.late if each[0] > self.step_number]
        for _, topic, key, value in due:
            self.publish(topic, value, key)

    def prices_at(self, half: int) -> None:
        self.account.prices = paths()[half]

    def ticks(self, coins: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{"symbol": name, "price": self.account.prices[name], "timestamp_ns": self.now_ns} for name in coins]

    def readings(self) -> None:
        for name, side in SIDES.items():
            body = {
                "symbol": name,
                "timestamp_ns": self.now_ns,
                "funding_rate": 0.0001 * side,
                "oi_change_pct": -0.01,
                "exchange_netflow_zscore": 0.3 * side,
                "liquidation_volume_24h": 2e6,
                "open_interest": 1e9,
            }
            self.say(Message("reading", "cascade-indicators", None, body, name))

    def signals(self) -> None:
        """Each strategy renews its claims once a minute."""
        for number, strategy in enumerate(STRATEGIES):
            if self.step_number % STEPS_A_MINUTE != 2 * number:
                continue
            for name, side in SIDES.items():
                body = {
                    "signal_id": f"{strategy}-{name}-{self.step_number}",
                    "strategy_id": strategy,
                    "symbol": name,
                    "action": "buy" if side > 0 else "sell",
                    "confidence": CONFIDENCE,
                    "risk_score": 0.2,
                    "regime": "ranging",
                    "timestamp_ns": self.now_ns,
                    "expected_return": side * EDGE,
                    "predicted_volatility": SIGMA,
                    "horizon_s": HORIZON_S,
                }
                self.claims.append((self.step_number, body, self.account.prices[name]))
                self.say(Message("signal", "signals", None, body, name, strategy))

    def outcomes(self) -> None:
        """Report what prices made of the claims whose horizon is over."""
        due = [each for each in self.claims if (self.step_number - each[0]) * STEP_S >= HORIZON_S]
        self.claims = self.claims[len(due) :]
        for _, claim, price in due:
            name = claim["symbol"]
            body = {
                "strategy_id": claim["strategy_id"],
                "symbol": name,
                "signal_id": claim["signal_id"],
                "side": SIDES[name],
                "realized_return": self.account.prices[name] / price - 1.0,
                "timestamp_ns": self.now_ns,
            }
            self.say(Message("outcome", "outcomes", None, body, name, claim["strategy_id"]))

    def order(self) -> None:
        """An operator states the portfolio's value, twice a minute."""
        value = {"portfolio_id": "main", "value_usd": self.account.equity}
        body = {"control_id": f"value-{self.step_number}", "kind": "portfolio_value", "payload": value}
        body |= {"reason": "hourly statement", "by": "operations", "timestamp_ns": self.now_ns}
        self.say(Message("order", "control", None, body, ""))

    def report(self) -> None:
        body = self.account.report("main", self.now_ns)
        self.say(Message("positions", "positions", None, body, ""))

    def fill(self) -> None:
        """Fill every new allocation at once and exactly."""
        for fields in self.fresh():
            self.account.take(fields, 0.0)
            for name in self.account.due(0.0):
                self.account.fill(name)

    def advise(self, question: dict[str, Any]) -> bytes:
        """Return the policy's reply: 2 % more than the rules. A late reply is none."""
        body = {
            "position_pct": question["market_data"]["w_base"] * 1.02,
            "confidence": 0.8,
            "predicted_return": 0.004,
            "predicted_volatility": 0.01,
            "model_version": "m-1",
        }
        message = Message("rl", "", None, body, question["symbol"])
        self.said[message.name] = message
        said = self.spoil(message, self.step_number)
        if not said:
            raise NoAnswer("timeout", f"no answer within {DEADLINE_S:g} s")
        return said[0].value

    # -- settings file -------------------------------------------------------------------------------------------------
    def watch(self, path: Path) -> None:
        """Run with a settings file that says what is in force."""
        self.file = path
        path.write_text(yaml.safe_dump(SCALED.model_dump(mode="json")))
        watch = FileWatch(path)
        self.reload = Reload(
            watch.loaded.settings,
            watch,
            takers=(),
            send=self.send,
            metrics=self.context.metrics or Metrics(),
            clock=lambda: self.now_ns,
            in_force=lambda: self._fold().state.settings_hash,
        )

    async def send(self, sends: list[Send]) -> None:
        for each in sends:
            self.cluster.publish(each)

    def settings(self) -> None:
        """Write the file as the spoil leaves it, and let the worker look twice."""
        if self.file is None or self.reload is None or self.reload._watch is None:
            return
        body = SCALED.model_dump(mode="json")
        said = self.spoil(Message("settings", "", None, body, ""), self.step_number)
        if said:
            self.file.write_bytes(said[0].value)
        else:
            self.file.unlink(missing_ok=True)
        for _ in range(2):
            found = self.reload._look(self.reload._watch)
            if found is not None:
                result_of(self.reload.changed(found))

    # -- what is seen --------------------------------------------------------------------------------------------------
    def _fold(self) -> Any:
        return self.processors[JOURNAL, 0][0]

    def state(self) -> Any:
        return self._fold().state

    def fresh(self) -> list[dict[str, Any]]:
        """Return the allocations since the last call."""
        records = self.cluster.log("allocations", 0).read(self.taken)
        self.taken += len(records)
        found = [orjson.loads(record.value or b"") for record in records]
        self.published += [quantities(fields) for fields in found]
        return found


def quantities(fields: dict[str, Any]) -> dict[str, float]:
    return {name: fields["targets"].get(name, {"quantity": 0.0})["quantity"] for name in COINS}


@cache
def warm() -> World:
    """Return the world after half an hour without faults, checkpointed: every run goes on from here."""
    world = World()
    world.run()
    world.state().gates.put(("main",), OPEN)
    for _ in range(WARM_STEPS):
        world.pass_step()
    world.checkpoint()
    return world


def played(world: World, steps: int) -> Iterator[list[dict[str, float]]]:
    """Play; yield what was published in each step, after what stood at its begin."""
    for _ in range(steps):
        known = len(world.published)
        world.pass_step()
        yield world.published[known - 1 :]

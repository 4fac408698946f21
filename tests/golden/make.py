"""Make the golden journal and what comes of it: `python tests/golden/make.py` (the journal too: `--journal`).

Everything is synthetic and seeded: four coins on a random walk with three crashes, four strategies, three portfolios,
readings, outcomes, orders, positions, dead and late and repeated inputs. The journal is written once and kept; only
what comes of it is made anew when `decision_version` is raised.
"""

import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden import replay  # noqa: E402 (the path comes first)

from engines.allocation import DECISION_VERSION  # noqa: E402
from engines.parameters import DecisionParams, tree_hash  # noqa: E402
from streams.driver import Driver  # noqa: E402
from streams.journal import entries as journal  # noqa: E402

STEP_S, ROUNDS = 60, 520
SYMBOLS = {"ADA-USD": 0.55, "BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0}
STRATEGIES = ("breakout", "carry", "momentum", "reversion")
PORTFOLIOS = ("alpha", "beta", "main")
REGIMES = ("trending_up", "trending_down", "ranging", "high_volatility", "crisis", "CRISIS_FLIGHT", "Choppy")
ACTIONS = ("strong_buy", "buy", "buy", "hold", "sell", "strong_sell")
CRASHES = {
    170: 0.93,
    171: 0.96,
    235: 1.03,
    500: 0.92,
    501: 0.93,
    260: 1.09,
    340: 0.85,
    341: 0.86,
    400: 1.03,
    410: 1.03,
    455: 1.03,
}
"""Round → factor of all prices."""


def settings() -> DecisionParams:
    """Return settings in which little data is enough for every engine to act."""
    tree = DecisionParams().model_dump()
    tree["market"] |= {"step_s": STEP_S, "bar_s": 300}
    tree["position_sizing"]["regime_adjustment"]["regime_aliases"] = {"choppy": "high_volatility"}
    tree["position_sizing"]["lots"] = {"BTC-USD": 0.02}
    contracts = {"ADA-USD": {"size": 10.0}, "SOL-USD": {"size": 10.0, "inverse": True}}
    tree["position_sizing"]["contracts"] = contracts
    tree["position_sizing"]["costs"]["slippage_ratio"] = 0.0002
    bold = {"kelly_fraction": 0.1, "first_claim": 0.3, "prior_calibration": 0.9, "min_edge": 0.01}
    tree["position_sizing"]["bayesian_kelly"] |= {"min_win_rate": 0.48, **bold}
    tree["position_sizing"]["conformal_prediction"] |= {"coverage": 0.8, "min_samples": 8, "window_size": 20}
    tree["validation_criteria"] |= {"max_price_age_s": 300.0, "min_position_usd": 120.0}
    tree["rl"] |= {"enabled": True, "mode": "live"}
    tree["rl"]["gate"] |= {"alpha": 0.5, "bound": 0.00002, "cusum_threshold": 3.0}
    return DecisionParams.model_validate(tree)


class World:
    """What the outside sends, drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.driver = Driver(settings(), partitions=1, journal_id="GQLDEN22")
        self.prices = dict(SYMBOLS)
        self.sent: list[dict[str, object]] = []
        self.number = 0
        self.asked = 0
        self.nudges: dict[tuple[object, ...], float] = {}
        """What the policy said last of each cell: it happens to be right, until it is not."""

    def publish(self, topic: str, **fields: object) -> None:
        body = {name: value for name, value in fields.items() if value is not None}
        self.driver.publish(topic, {"timestamp_ns": self.driver.now_ns, **body})

    def tick(self, number: int) -> None:
        """Move all prices; now and then one symbol says nothing, so that its price grows old."""
        ticks = []
        for symbol in self.prices:
            moved = self.prices[symbol] * CRASHES.get(number, 1.0) * (1.0 + self.chance.gauss(0.0, 0.002))
            self.prices[symbol] = price = round(moved, 6)
            if not 300 <= number <= 325 or symbol != "ADA-USD":
                volume = round(self.chance.expovariate(1.0) * (40.0 if number in CRASHES else 4.0), 4)
                now_ns = self.driver.now_ns
                ticks.append({"symbol": symbol, "price": price, "volume": volume, "timestamp_ns": now_ns})
        self.driver.publish("prices", {"ticks": ticks}, key=b"prices")

    def signal(self) -> None:
        chance = self.chance
        self.number += 1
        action = chance.choice(ACTIONS)
        side = -1 if "sell" in action else 1
        volatility = round(chance.uniform(0.004, 0.03), 5) if chance.random() < 0.8 else None
        claimed = round(side * (volatility or 0.01) * chance.uniform(0.0, 0.8), 6) if chance.random() < 0.8 else None
        often = chance.random() < 0.5
        fields = {
            "signal_id": f"s-{self.number}" if chance.random() < 0.95 else None,
            "portfolio_id": "main" if often else chance.choice(PORTFOLIOS),
            "strategy_id": "momentum" if often else chance.choice(STRATEGIES),
            "symbol": "BTC-USD" if often else chance.choice((*SYMBOLS, *SYMBOLS, *SYMBOLS, "XRP-USD")),
            "action": action,
            "confidence": round(chance.random(), 3),
            "risk_score": round(chance.random(), 3),
            "regime": chance.choice((*REGIMES, "ranging", "ranging", "trending_up")),
            "expected_return": claimed,
            "predicted_volatility": volatility,
            "horizon_s": chance.choice((60, 60, 120, 120, 600)),
            "valid_for_s": chance.choice((None, 120, 1200)),
            "sentiment_score": round(chance.random(), 2) if chance.random() < 0.5 else None,
            "sentiment_confidence": round(chance.random(), 2) if chance.random() < 0.3 else None,
        }
        self.publish("signals", **fields)
        if fields["signal_id"] and action != "hold":
            self.sent.append(fields)

    def outcome(self) -> None:
        if not self.sent:
            return
        claimed = self.sent.pop(-1 - self.chance.randrange(min(6, len(self.sent))))
        volatility = claimed["predicted_volatility"] or 0.01
        noise = 0.2 * volatility * self.chance.gauss(0.0, 1.0)
        cell = (claimed["portfolio_id"], claimed["strategy_id"], claimed["symbol"])
        side = -1 if "sell" in claimed["action"] else 1
        noise += side * self.nudges.pop(cell, 0.0) * (0.12 if self.number < 620 else -0.12)
        self.publish(
            "outcomes",
            portfolio_id=claimed["portfolio_id"],
            strategy_id=claimed["strategy_id"],
            symbol=claimed["symbol"],
            signal_id=claimed["signal_id"],
            side=-1 if "sell" in claimed["action"] else 1,
            realized_return=round(0.8 * (claimed["expected_return"] or 0.0) + noise, 6),
            holding_s=self.chance.choice((None, 60, 600)),
        )

    def answers(self) -> None:
        """Answer what the policy is asked: mostly; now and then not, twice, with little confidence, or too late."""
        chance = self.chance
        requests = self.driver.read("rl-requests")
        for record in requests[self.asked :]:
            request = json.loads(record.value)
            named = {name: request[name] for name in ("decision_id", "portfolio_id", "strategy_id", "symbol")}
            drawn = chance.random()
            if drawn < 0.1:
                self.append("no_advice", {**named, "reason": chance.choice(("timeout", "invalid", "open"))})
            if drawn < 0.15:
                continue
            nudge = round(chance.choice((-1, 1)) * chance.uniform(0.25, 0.4), 4)
            self.nudges[request["portfolio_id"], request["strategy_id"], request["symbol"]] = nudge
            confidence = round(chance.uniform(0.45, 1.0), 3)
            body = {**named, "nudge": nudge, "confidence": confidence, "model_version": "golden", "raw": "{}"}
            self.append("advice", body)
            if drawn > 0.95:
                self.append("advice", {**body, "nudge": -nudge})
        self.asked = len(requests)

    def readings(self) -> None:
        chance = self.chance
        self.publish(
            "cascade-indicators",
            symbol=chance.choice((None, *SYMBOLS)),
            funding_rate=round(chance.gauss(0.0, 0.0007), 6),
            funding_interval_hours=chance.choice((1, 4, 8)),
            oi_change_pct=round(chance.gauss(0.0, 0.03), 4) if chance.random() < 0.7 else None,
            volume_ratio=round(chance.expovariate(0.7), 3) if chance.random() < 0.2 else None,
            onchain_whale_pressure=round(0.7 * chance.random() ** 2, 3) if chance.random() < 0.7 else None,
            exchange_netflow_zscore=round(chance.gauss(0.0, 0.6), 3) if chance.random() < 0.5 else None,
            liquidation_volume_24h=round(chance.expovariate(4e-7)) if chance.random() < 0.3 else None,
            open_interest=2e9 if chance.random() < 0.5 else None,
        )

    def control(self, kind: str, **payload: object) -> None:
        self.number += 1
        self.publish("control", control_id=f"c-{self.number}", kind=kind, payload=payload, reason="golden", by="tests")

    def change(self, **risk: object) -> None:
        """Change settings, based on those in force."""
        base = self.driver.processors["journal", 0][0].state.params
        tree = base.model_dump()
        tree["risk_management"] |= risk
        wanted = DecisionParams.model_validate(tree)
        self.control("settings", base_hash=tree_hash(base), hash=tree_hash(wanted), tree=wanted.model_dump())

    def positions(self, portfolio: str) -> None:
        quantities = {symbol: round(self.chance.gauss(0, 4_000) / self.prices[symbol], 6) for symbol in SYMBOLS}
        equity = round(self.chance.uniform(8e4, 1e5), 2)
        self.publish("positions", portfolio_id=portfolio, quantities=quantities, equity=equity)

    def append(self, kind: str, body: dict[str, object]) -> None:
        """Write an entry that no source stands behind."""
        value = journal.internal(kind, body, self.driver.now_ns)
        self.driver.cluster.log(journal.TOPIC, 0).append(None, value)

    def call(self) -> None:
        """Write what a library call writes: prices, readings and several signals of one moment."""
        now_ns = self.driver.now_ns
        signals = [
            {
                "action": self.chance.choice(("buy", "sell")),
                "confidence": 0.7,
                "regime": "ranging",
                "risk_score": 0.1,
                "signal_id": f"call-{now_ns}",
                "strategy_id": strategy,
                "symbol": symbol,
                "timestamp_ns": now_ns,
            }
            for strategy, symbol in (("momentum", "BTC-USD"), ("carry", "BTC-USD"), ("carry", "SOL-USD"))
        ]
        cascade = [{"symbol": "SOL-USD", "oi_change_pct": -0.04, "timestamp_ns": now_ns}]
        prices = {symbol: self.prices[symbol] for symbol in ("BTC-USD", "SOL-USD")}
        self.append("call", {"cascade": cascade, "prices": prices, "signals": signals})


ORDERS = {
    90: lambda world: world.control("trading_state", scope="strategy:carry", state="REDUCING"),
    120: lambda world: world.control("trading_state", scope="strategy:carry", state="ACTIVE"),
    130: lambda world: world.control("portfolio_value", portfolio_id="alpha", value_usd=250_000.0),
    140: lambda world: world.control("portfolio_value", portfolio_id="alpha", value_usd=205_000.0),
    150: lambda world: world.change(max_position_pct=0.1, max_portfolio_allocation=0.3),
    180: lambda world: world.control("trading_state", scope="symbol:ETH-USD", state="HALTED"),
    190: lambda world: world.control("trading_state", scope="symbol:ETH-USD", state="ACTIVE"),
    200: lambda world: world.control("portfolio_value", portfolio_id="alpha", value_usd=190_000.0, reset_peak=True),
    210: lambda world: world.positions("beta"),
    220: lambda world: world.change(max_position_pct=0.15, max_portfolio_allocation=0.8, allow_short=False),
    230: lambda world: world.positions("beta"),
    240: lambda world: world.change(allow_short=True, max_drawdown_pct=0.2),
    250: lambda world: world.append("adopt", {"topic": "outcomes", "epoch": 0}),
    255: lambda world: world.append("engine", {"from_version": DECISION_VERSION, "to_version": DECISION_VERSION}),
    270: lambda world: world.control("rl_mode", mode="shadow", scope="strategy:carry"),
    290: lambda world: world.control("rl_mode", mode="live", scope="portfolio:main"),
    280: lambda world: world.call(),
    320: lambda world: world.control("trading_state", scope="all", state="HALTED"),
    325: lambda world: world.control("trading_state", scope="all", state="ACTIVE"),
    360: lambda world: world.call(),
    430: lambda world: world.control("rl_mode", mode="live", scope="portfolio:main"),
    420: lambda world: world.change(max_strategy_allocation=0.02),
    460: lambda world: world.change(max_strategy_allocation=0.4, max_portfolio_allocation=0.02),
}


def build(seed: int = 16) -> list[bytes]:
    """Return the entries of a journal."""
    world = World(seed)
    for number in range(ROUNDS):
        world.tick(number)
        if number >= 130:
            for _ in range(world.chance.randrange(4)):
                world.signal()
            for _ in range(world.chance.randrange(4)):
                world.outcome()
        if number % 9 == 0:
            world.readings()
        if number in ORDERS:
            ORDERS[number](world)
        if number % 10:
            world.driver.run()
            world.answers()
        world.driver.advance(STEP_S)
    return [record.value or b"" for record in world.driver.cluster.log(journal.TOPIC, 0).read(0)]


if __name__ == "__main__":
    if "--journal" in sys.argv or not replay.JOURNAL.exists():
        replay.JOURNAL.write_bytes(b"\n".join(build()) + b"\n")
    found = replay.replay(replay.read())
    replay.EXPECTED.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"{found['entries']} entries, {found['outputs']}, sha256 {found['sha256']}\n")
    sys.stdout.write(f"state: {found['state_records']}, sha256 {found['state_sha256']}\n")

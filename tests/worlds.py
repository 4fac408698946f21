"""Small worlds for tests: messages as plain dicts, and scripts that Hypothesis draws."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import orjson
from hypothesis import strategies as st

from engines.parameters import DecisionParams
from streams.driver import SECOND_NS, START_NS
from streams.driver import Driver as BareDriver
from streams.journal import entries as journal

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
PRICES = {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0, "SOL-USD": 98.0}
REGIMES = ("trending_up", "trending_down", "ranging", "high_volatility", "crisis")


def with_(params: Any, *changes: tuple[str, Any]) -> Any:
    """Return settings with dotted keys changed."""
    tree = params.model_dump()
    for key, value in changes:
        *path, name = key.split(".")
        section = tree
        for part in path:
            section = section[part]
        section[name] = value
    return type(params).model_validate(tree)


KELLY = "position_sizing.bayesian_kelly"
TRUSTING = with_(
    DecisionParams(),
    (f"{KELLY}.first_claim", 0.16),
    (f"{KELLY}.max_claim", 10.0),
    (f"{KELLY}.max_usual_claims", 100.0),
    (f"{KELLY}.max_prior_weight", 1e6),
    (f"{KELLY}.prior_calibration", 0.5),
    (f"{KELLY}.min_edge", 0.02),
)
"""Settings that believe a first claim so far that it reaches the caps: for tests of what comes after Kelly."""


@cache
def trusting_file() -> str:
    """Return a settings file with what `TRUSTING` says of Kelly, for the library."""
    file = Path(mkdtemp(prefix="himari-")) / "trusting.yaml"
    kelly = TRUSTING.position_sizing.bayesian_kelly.model_dump()
    file.write_text(orjson.dumps({"position_sizing": {"bayesian_kelly": kelly}}).decode())
    return str(file)


class Driver(BareDriver):
    """A driver whose settings are `TRUSTING` where no others are given."""

    def __init__(self, params: DecisionParams | None = None, **given: Any) -> None:
        super().__init__(params or TRUSTING, **given)


def signal(now_ns: int, **given: Any) -> dict[str, Any]:
    return {
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "action": "buy",
        "confidence": 0.8,
        "risk_score": 0.2,
        "regime": "ranging",
        "timestamp_ns": now_ns,
        "expected_return": 0.01,
        "predicted_volatility": 0.02,
        **given,
    }


def tick(now_ns: int, symbol: str = "BTC-USD", price: float | None = None, **given: Any) -> dict[str, Any]:
    return {"symbol": symbol, "price": price or PRICES[symbol], "timestamp_ns": now_ns, **given}


def control(now_ns: int, kind: str, payload: dict[str, Any], control_id: str = "c-1") -> dict[str, Any]:
    return {
        "control_id": control_id,
        "kind": kind,
        "payload": payload,
        "reason": "a test",
        "by": "tests",
        "timestamp_ns": now_ns,
    }


def priced(driver: Driver | None = None, **prices: float) -> Driver:
    """Return a driver that knows a price of every symbol."""
    driver = driver or Driver()
    for symbol in SYMBOLS:
        driver.publish("prices", tick(driver.now_ns, symbol, prices.get(symbol)), key=symbol.encode())
    driver.advance(2.0)
    return driver


def asked(driver: Driver) -> list[dict[str, Any]]:
    """Return all questions to the policy, oldest first."""
    return [orjson.loads(record.value or b"") for record in driver.read("rl-requests")]


def answer(driver: Driver, request: dict[str, Any], nudge: float, confidence: float = 1.0) -> None:
    """Journal the policy's answer to a question."""
    named = {name: request[name] for name in ("decision_id", "portfolio_id", "strategy_id", "symbol")}
    body = {**named, "nudge": nudge, "confidence": confidence, "model_version": "test-1", "raw": "{}"}
    append(driver, request, "advice", body)


def no_answer(driver: Driver, request: dict[str, Any], reason: str) -> None:
    """Journal that there is no answer to a question."""
    named = {name: request[name] for name in ("decision_id", "portfolio_id", "strategy_id", "symbol")}
    append(driver, request, "no_advice", {**named, "reason": reason})


def append(driver: Driver, request: dict[str, Any], kind: str, body: dict[str, Any]) -> None:
    """Journal an entry where the decision that a question is about stands, and let it act."""
    partition = int(request["decision_id"].split("-")[1])
    driver.cluster.log(journal.TOPIC, partition).append(None, journal.internal(kind, body, driver.now_ns))
    driver.run()


def last(driver: Driver, portfolio: str = "main") -> dict[str, Any]:
    """Return the newest allocation of a portfolio."""
    return max(driver.allocations(portfolio), key=lambda fields: fields["sequence"])


def targets(fields: dict[str, Any]) -> dict[str, float]:
    return {symbol: target["notional_usd"] for symbol, target in fields["targets"].items()}


unit = st.floats(0, 1).map(lambda value: round(value, 3))

signals = st.fixed_dictionaries(
    {
        "strategy_id": st.sampled_from(("momentum", "reversion", "carry")),
        "symbol": st.sampled_from(SYMBOLS),
        "action": st.sampled_from(("strong_buy", "buy", "hold", "sell", "strong_sell")),
        "confidence": unit,
        "risk_score": unit,
        "regime": st.sampled_from(REGIMES),
        "portfolio_id": st.sampled_from(("main", "alpha", "beta")),
        "size": st.floats(0, 0.2).map(lambda value: round(value, 4)),
        "predicted_volatility": st.sampled_from((None, 0.005, 0.02, 0.1)),
        "sentiment_score": st.sampled_from((None, 0.1, 0.5, 0.95)),
        "valid_for_s": st.sampled_from((30, 600, 3600)),
    }
)

events = st.one_of(
    st.tuples(st.just("signal"), signals),
    st.tuples(st.just("price"), st.tuples(st.sampled_from(SYMBOLS), st.floats(0.8, 1.25))),
    st.tuples(st.just("outcome"), st.tuples(st.integers(0, 20), st.floats(-0.1, 0.1))),
    st.tuples(st.just("cascade"), st.tuples(st.sampled_from((*SYMBOLS, None)), unit, unit)),
    st.tuples(
        st.just("state"),
        st.tuples(
            st.sampled_from(("all", "portfolio:main", "strategy:momentum", "symbol:BTC-USD")),
            st.sampled_from(("ACTIVE", "REDUCING", "HALTED")),
        ),
    ),
    st.tuples(st.just("value"), st.tuples(st.sampled_from(("main", "alpha")), st.floats(50_000, 150_000))),
    st.tuples(st.just("pass"), st.sampled_from((0.5, 2.0, 40.0, 4000.0))),
)
answers = st.tuples(
    st.just("answer"), st.tuples(st.integers(0, 3), st.floats(-0.5, 0.5), st.sampled_from((0.0, 0.4, 0.7, 1.0)))
)
scripts = st.lists(st.one_of(events, answers), min_size=1, max_size=25)


def play(driver: Driver, script: list[tuple[str, Any]], already: int = 0) -> None:
    """Publish a script and let time pass as it says; its events are numbered from `already` on."""
    sent: list[dict[str, Any]] = []
    for number, (kind, what) in enumerate(script, already):
        now_ns = driver.now_ns
        if kind == "signal":
            sent.append(_signal(now_ns, number, dict(what)))
            driver.publish("signals", sent[-1])
        elif kind == "price":
            driver.publish("prices", tick(now_ns, what[0], PRICES[what[0]] * what[1]), key=what[0].encode())
        elif kind == "outcome" and sent:
            driver.publish("outcomes", _outcome(now_ns, sent[what[0] % len(sent)], what[1]))
        elif kind == "cascade":
            driver.publish("cascade-indicators", _readings(now_ns, *what))
        elif kind == "state":
            payload = {"scope": what[0], "state": what[1]}
            driver.publish("control", control(now_ns, "trading_state", payload, f"c-{number}"))
        elif kind == "value":
            payload = {"portfolio_id": what[0], "value_usd": round(what[1], 2)}
            driver.publish("control", control(now_ns, "portfolio_value", payload, f"c-{number}"))
        elif kind == "answer":
            _answer(driver, *what)
        elif kind == "pass":
            driver.advance(what)
            continue
        driver.advance(1.0)
    driver.advance(2.0)


def _answer(driver: Driver, back: int, nudge: float, confidence: float) -> None:
    """Answer one of the newest questions, or say that there is no answer."""
    driver.run()
    for request in asked(driver)[-1 - back :][:1]:
        if confidence:
            answer(driver, request, nudge, confidence)
        else:
            no_answer(driver, request, "timeout")


def _signal(now_ns: int, number: int, drawn: dict[str, Any]) -> dict[str, Any]:
    size = drawn.pop("size")
    side = -1 if "sell" in drawn["action"] else 1
    drawn = {name: value for name, value in drawn.items() if value is not None}
    return {**drawn, "signal_id": f"s-{number}", "timestamp_ns": now_ns, "expected_return": size * side}


def _outcome(now_ns: int, claimed: dict[str, Any], realised: float) -> dict[str, Any]:
    return {
        "portfolio_id": claimed["portfolio_id"],
        "strategy_id": claimed["strategy_id"],
        "symbol": claimed["symbol"],
        "signal_id": claimed["signal_id"],
        "side": -1 if "sell" in claimed["action"] else 1,
        "realized_return": realised,
        "timestamp_ns": now_ns,
    }


def _readings(now_ns: int, symbol: str | None, whale: float, drop: float) -> dict[str, Any]:
    known = {"onchain_whale_pressure": whale, "oi_change_pct": -drop, "timestamp_ns": now_ns}
    return known if symbol is None else {**known, "symbol": symbol}


__all__ = [
    "SECOND_NS",
    "START_NS",
    "Driver",
    "answer",
    "answers",
    "asked",
    "control",
    "last",
    "no_answer",
    "play",
    "priced",
    "scripts",
    "signal",
    "targets",
    "tick",
]

"""In-process cost of a policy: a decision with nudges, a decision on its answer, and a library call."""

from time import perf_counter_ns
from typing import Any

from benchmarks.rig import START_NS, ratios, spread
from benchmarks.together import SECOND_NS, median_us, product_us
from engines.models import circuit_breaker, policy_gate
from engines.models.circuit_breaker import Breaker, BreakerParams
from engines.models.policy_gate import Gate
from engines.parameters import GateParams
from engines.pipeline.decide import Trigger, decide
from streams.library.hybrid import Layer3Phase3Hybrid

CELLS = (("carry", "BTC-USD"), ("momentum", "BTC-USD"), ("momentum", "ETH-USD"))
PRICES = {"BTC-USD": 43_500.0, "ETH-USD": 2_280.0}
OPEN = Gate(status="open", windows=1_000, lower=0.01, difference_square_sum=0.01)


class Book:
    """Three signals on two symbols, with a policy whose gate is open, or without one."""

    def __init__(self, *, asks: bool) -> None:
        self.layer3 = Layer3Phase3Hybrid(
            portfolio_value=1_000_000, enable_rl=asks, use_mock_rl=True, rl_mode="live", enable_metrics=False
        )
        self.state = self.layer3._core.state  # noqa: SLF001 (what is timed is inside)
        self.state.gates.put(("main",), OPEN)
        self.now_ns = START_NS
        self.call()

    def call(self) -> int:
        """Size three new signals, asking the policy about each; return ns."""
        self.now_ns += SECOND_NS
        signals = [
            {
                "strategy_id": strategy,
                "symbol": symbol,
                "action": "buy",
                "confidence": 0.8,
                "risk_score": 0.2,
                "regime": "ranging",
                "timestamp_ns": self.now_ns,
                "expected_return": 0.01,
                "predicted_volatility": 0.02,
            }
            for strategy, symbol in CELLS
        ]
        began = perf_counter_ns()
        self.layer3.process_signals(signals, None, PRICES)
        return perf_counter_ns() - began

    def decision(self, way: Any) -> int:
        """Decide on the current state; return ns."""
        trigger = Trigger("signal", "bench", way=way, cell=CELLS[0])
        began = perf_counter_ns()
        decide(self.state, "main", trigger)
        return perf_counter_ns() - began


def _gate_step() -> int:
    params = GateParams()
    began = perf_counter_ns()
    policy_gate.step(OPEN, 0.001, 0.0012, params)
    return perf_counter_ns() - began


def _breaker_round() -> int:
    params = BreakerParams()
    began = perf_counter_ns()
    now, ticket = circuit_breaker.admit(Breaker(), 1, params)
    if ticket is not None:
        circuit_breaker.answered(now, ticket, 2, params, ok=True)
    return perf_counter_ns() - began


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return µs of decisions and calls with and without a policy, their differences, and ratios to the yardstick."""
    runs, repeats = (1, 5) if quick else (7, 201)
    rules, hybrid = Book(asks=False), Book(asks=True)
    found: dict[str, list[float]] = {name: [] for name in ("yardstick", "rules", "nudged", "answer", "call", "asking")}
    for _ in range(runs):
        found["yardstick"].append(product_us())
        found["rules"].append(median_us(lambda: rules.decision("full"), repeats))
        found["nudged"].append(median_us(lambda: hybrid.decision("full"), repeats))
        found["answer"].append(median_us(lambda: hybrid.decision("kept"), repeats))
        found["call"].append(median_us(rules.call, repeats))
        found["asking"].append(median_us(hybrid.call, repeats))
    extra = [with_ - without for with_, without in zip(found["nudged"], found["rules"], strict=True)]
    return {
        "product_200_us": spread(found["yardstick"]),
        "decision_us": spread(found["rules"]),
        "decision_with_nudges_us": spread(found["nudged"]),
        "nudges_cost_us": spread(extra),
        "target_us": 60.0,
        "decision_on_an_answer_us": spread(found["answer"]),
        "answer_over_decision": ratios(found["answer"], found["rules"]),
        "call_us": spread(found["call"]),
        "call_with_three_questions_us": spread(found["asking"]),
        "gate_step_us": median_us(_gate_step, repeats),
        "breaker_round_us": median_us(_breaker_round, repeats),
    }

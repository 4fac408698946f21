"""What is counted of the policy and its breaker: the side agent's watcher."""

from collections.abc import Iterator
from typing import Final

from schemas.rl import Advice
from streams.monitoring.metrics import Metrics
from streams.monitoring.samples import Labels
from streams.policy.client import Outcome, PolicyClient

STATES: Final = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


class PolicyMetrics:
    """Counts for one worker, or one library object."""

    def __init__(self, metrics: Metrics) -> None:
        """Record on `metrics`."""
        self._metrics = metrics
        self._asked = self._good = 0

    def came(self, outcome: Outcome) -> None:
        """Take what became of a question."""
        metrics, result = self._metrics, outcome.result
        answered = isinstance(result, Advice)
        metrics.count("rl_requests_total", "advice" if isinstance(result, Advice) else result.reason)
        if not answered:
            metrics.count("circuit_breaker_fallbacks_total")
        if not outcome.asked:
            return
        metrics.histograms["rl_latency_seconds"][()].observe(outcome.took_s)
        good = answered or (not isinstance(result, Advice) and result.reason == "late")
        self._asked, self._good = self._asked + 1, self._good + good
        if not good:
            metrics.count("circuit_breaker_failures_total")
        metrics.set("circuit_breaker_success_ratio", self._good / self._asked)

    def watch(self, desk: PolicyClient) -> None:
        """Show this desk's breaker, instead of the last one's, whenever somebody looks."""
        self._metrics.sources["policy"] = lambda: breaker_of(desk)

    def turned(self) -> None:
        """Take that an alert on the breaker is raised."""
        self._metrics.alert("breaker")

    def repeated(self) -> None:
        """Take that a question was delivered again, and dropped."""
        self._metrics.count("rl_repeated_requests_total")

    def load(self, in_flight: int, waiting: int) -> None:
        """Take how many questions are being asked, and how many wait for that."""
        self._metrics.set("rl_in_flight", in_flight)
        self._metrics.set("rl_waiting", waiting)


def breaker_of(desk: PolicyClient) -> Iterator[tuple[str, Labels, float]]:
    """Return the breaker's gauges as they are now."""
    now = desk.status()
    yield "circuit_breaker_state", (), STATES[now.status]
    yield "circuit_breaker_timeout_seconds", (), now.timeout_s

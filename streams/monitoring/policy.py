"""Metrics of the policy and its circuit breaker; the watcher of the policy agent."""

from collections.abc import Iterator
from typing import Final

from schemas.rl import Advice
from streams.monitoring.metrics import Metrics
from streams.monitoring.samples import Labels
from streams.policy.client import Outcome, PolicyClient

STATES: Final = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


class PolicyMetrics:
    """Policy metrics of one worker, or of one library object."""

    def __init__(self, metrics: Metrics) -> None:
        """Record on `metrics`."""
        self._metrics = metrics
        self._asked = self._good = 0

    def came(self, outcome: Outcome) -> None:
        """Record the result of a question."""
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

    def watch(self, client: PolicyClient) -> None:
        """Export the breaker of this client, in place of any earlier one."""
        self._metrics.sources["policy"] = lambda: breaker_of(client)

    def turned(self) -> None:
        """Record an alert on the breaker."""
        self._metrics.alert("breaker")

    def repeated(self) -> None:
        """Record a redelivered question that was dropped."""
        self._metrics.count("rl_repeated_requests_total")

    def load(self, in_flight: int, waiting: int) -> None:
        """Record the number of questions in flight, and of those waiting."""
        self._metrics.set("rl_in_flight", in_flight)
        self._metrics.set("rl_waiting", waiting)


def breaker_of(client: PolicyClient) -> Iterator[tuple[str, Labels, float]]:
    """Yield the breaker's gauges."""
    now = client.status()
    yield "circuit_breaker_state", (), STATES[now.status]
    yield "circuit_breaker_timeout_seconds", (), now.timeout_s

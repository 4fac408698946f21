"""Conformance check of a policy endpoint: does it fit the worker, and how fast is it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

from config.policy import TensorNames
from engines.handlers.policy_request import FEATURES
from schemas.rl import RlRequest
from streams.policy.adapters import Adapter, OpenInference, Predict
from streams.policy.answer import TENSORS, Answer, NoAnswer
from streams.policy.http_transport import Link

ConformanceVerdict = Literal["fits", "does not fit", "note", "not tried"]
TOGETHER: Final = 32
"""Questions asked concurrently."""
IDS: Final = ("PROBE222-0-1-main", "PROBE222-11-9007199254740993-a:b/c.d_e-f", "P" * 128)
NOW_NS: Final = 1_700_000_000_000_000_000
MINUTE_NS: Final = 60_000_000_000


class ConformanceFinding(NamedTuple):
    """The result of one check."""

    name: str
    verdict: ConformanceVerdict
    detail: str


class Report(NamedTuple):
    """The result of all checks."""

    url: str
    protocol: str
    reachable: bool
    findings: list[ConformanceFinding]
    latency_ms: dict[str, float]
    """p50, p90, p99 and max of questions asked one by one; empty if none was answered."""

    @property
    def fits(self) -> bool:
        """Whether the endpoint is reachable and passes every check."""
        return self.reachable and all(each.verdict != "does not fit" for each in self.findings)

    def plain(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            **self._asdict(),
            "findings": [each._asdict() for each in self.findings],
            "fits": self.fits,
        }


class Probe:
    """Runs the checks against one endpoint."""

    def __init__(
        self,
        link: Link,
        protocol: str,
        *,
        model: str = "policy",
        tensors: TensorNames = TENSORS,
        timeout_s: float = 5.0,
        count: int = 50,
    ) -> None:
        """Check the endpoint of `link`; measure latency with `count` questions one by one."""
        self.link, self.protocol = link, protocol
        self.adapter: Adapter = Predict(link) if protocol == "predict" else OpenInference(link, model, tensors=tensors)
        self.timeout_s, self.count = timeout_s, count
        self.findings: list[ConformanceFinding] = []

    async def report(self) -> Report:
        """Run all checks; only the first one if the endpoint is unreachable."""
        try:
            reachable = await self._reached()
            latency_ms = await self._asked() if reachable else {}
        finally:
            await self.link.close()
        return Report(self.link.endpoint, self.protocol, reachable, self.findings, latency_ms)

    async def _reached(self) -> bool:
        """Check the metadata and ask one question; return whether the endpoint responds."""
        name = "metadata" if self.protocol == "oip" else "answer"
        try:
            if self.protocol == "oip":
                await self.adapter.check(self.timeout_s)
                self._found(name, *self._declared())
                name = "answer"
            self._found(name, "fits", _shown(await self._ask(_question(0))))
        except NoAnswer as error:
            self._found(name, "does not fit", str(error))
            return error.reason == "invalid" or "status must be" in str(error)
        return True

    def _declared(self) -> tuple[ConformanceVerdict, str]:
        """Return verdict and text for metadata that fits."""
        if isinstance(self.adapter, OpenInference) and self.adapter.undeclared:
            return "note", "no outputs are declared: only the answers are checked"
        return "fits", f"state [1, {len(FEATURES)}] in, nudge and confidence out"

    async def _asked(self) -> dict[str, float]:
        if any(each.verdict == "does not fit" for each in self.findings):
            return {}
        await self._tried("ids", self._ids)
        await self._tried("range", self._range)
        await self._tried("determinism", self._determinism)
        await self._tried("together", self._together)
        taken_ms: list[float] = []
        await self._tried("latency", lambda: self._latency(taken_ms))
        await self._strictness()
        return quantiles(taken_ms)

    async def _tried(self, name: str, trial: Callable[[], Awaitable[tuple[ConformanceVerdict, str]]]) -> None:
        try:
            self._found(name, *await trial())
        except NoAnswer as error:
            self._found(name, "does not fit", str(error))

    # -- trials --------------------------------------------------------------------------------------------------------
    async def _ids(self) -> tuple[ConformanceVerdict, str]:
        if self.protocol != "oip":
            return "not tried", "predict carries no id"
        for each in IDS:
            await self._ask(_question(0, decision_id=each))
        return "fits", f"{len(IDS)} ids are returned unchanged"

    async def _range(self) -> tuple[ConformanceVerdict, str]:
        for fields in (
            {"w_base": 0.0},
            {"w_base": -0.15, "action": "sell"},
            {"state": [0.0] * len(FEATURES)},
            {"state": [1e6] * len(FEATURES)},
            {"state": [-1e6] * len(FEATURES)},
            {"price": None, "regime": "crisis", "symbol": "A:b/c.d_e-f"},
        ):
            await self._ask(_question(0, **fields))
        return "fits", "short and flat books, extreme states and a missing price are answered within bounds"

    async def _determinism(self) -> tuple[ConformanceVerdict, str]:
        first, again = [await self._ask(_question(number)) for number in (1, 1)]
        if first[:5] != again[:5]:
            return "note", "the same question got two different answers; the journal keeps the first"
        other = await self._ask(_question(2))
        same = "" if other[:2] != first[:2] else ", and a different question has it too"
        return "fits", f"the same question has the same answer{same}"

    async def _together(self) -> tuple[ConformanceVerdict, str]:
        await asyncio.gather(*(self._ask(_question(number)) for number in range(TOGETHER)))
        return "fits", f"{TOGETHER} concurrent questions are answered"

    async def _latency(self, taken_ms: list[float]) -> tuple[ConformanceVerdict, str]:
        for number in range(self.count):
            began_s = time.monotonic()
            await self._ask(_question(number))
            taken_ms.append(1e3 * (time.monotonic() - began_s))
        measured = ", ".join(f"{name} {value:.1f}" for name, value in quantiles(taken_ms).items())
        return "fits", f"{measured} ms; timeout {1e3 * self.timeout_s:.0f} ms"

    async def _strictness(self) -> None:
        """Check that an invalid question is refused; informational only."""
        path = "/v2/models/no-such-model/infer" if self.protocol == "oip" else ""
        try:
            await self.link.call("POST", path, b'{"no": "question"}', self.timeout_s)
        except NoAnswer as error:
            self._found("strictness", "fits", f"an invalid question is refused: {error}")
        else:
            self._found("strictness", "note", "an invalid question is answered with status 200")

    async def _ask(self, request: RlRequest) -> Answer:
        return await self.adapter.ask(request, self.timeout_s)

    def _found(self, name: str, verdict: ConformanceVerdict, detail: str) -> None:
        self.findings.append(ConformanceFinding(name, verdict, detail))


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Return p50, p90, p99 and max, nearest rank; empty for no values.

    >>> quantiles(range(1, 101))
    {'p50': 50, 'p90': 90, 'p99': 99, 'max': 100}
    """
    ranked = sorted(values)
    if not ranked:
        return {}
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: ranked[max(0, -int(-len(ranked) * share // 1) - 1)] for name, share in ranks.items()}


def _question(number: int, **fields: Any) -> RlRequest:
    """Return a synthetic question; its state vector depends on `number`."""
    return RlRequest.model_validate(
        {
            "decision_id": f"PROBE222-0-{number}-main",
            "portfolio_id": "main",
            "strategy_id": "probe",
            "symbol": "BTC-USD",
            "w_base": 0.1,
            "action": "buy",
            "confidence": 0.7,
            "risk_score": 0.2,
            "regime": "ranging",
            "expected_return": 0.01,
            "predicted_volatility": 0.02,
            "horizon_s": 3_600.0,
            "price": 43_500.0,
            "portfolio_value": 100_000.0,
            "state": [((number * 7 + index) % 11) / 10 for index in range(len(FEATURES))],
            "deadline_ns": NOW_NS + MINUTE_NS,
        }
        | fields
    )


def _shown(answer: Answer) -> str:
    return f"nudge {answer.nudge:+.4f}, confidence {answer.confidence:.4f}, {answer.model_version}"

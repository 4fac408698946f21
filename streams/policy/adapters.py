"""Adapters: how a question is put to a policy, by protocol, and its answer read."""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

import orjson

from config.policy import TensorNames
from schemas.errors import InvalidAdviceException
from schemas.rl import RlRequest
from streams.policy.answer import TENSORS, Answer, Kinds, NoAnswer, fitting, inferred, predicted
from streams.policy.http_transport import Link, Reply

PROTOCOLS: Final = ("oip", "predict", "mock")
PolicyProtocols = Literal["oip", "predict", "mock"]
DISABLED: Final = "rl.endpoint: must be a URL, was null"


class Adapter(Protocol):
    """A way to ask a policy."""

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return a policy's answer, checked in full, within `timeout_s` of wall time.

        Raises:
            NoAnswer: there is none that counts; why.
        """

    async def check(self, timeout_s: float) -> None:
        """Find out what can be known before the first question. Raises: NoAnswer: it would not be answered."""

    async def close(self) -> None:
        """Let go of every connection."""


class Predict:
    """The mission's own protocol: JSON about a signal, answered by a position as a share of the portfolio's value."""

    def __init__(self, link: Link) -> None:
        """POST to the link's endpoint as it stands."""
        self._link = link

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return the position that the policy would take, as a nudge."""
        reply = await self._link.call("POST", "", orjson.dumps(question(request)), timeout_s)
        try:
            return predicted(reply.raw, request.w_base, place=reply.place)
        except InvalidAdviceException as error:
            raise NoAnswer("invalid", str(error)) from None

    async def check(self, timeout_s: float) -> None:
        """Know nothing: the protocol has no way to ask."""

    async def close(self) -> None:
        """Close the pool."""
        await self._link.close()


class OpenInference:
    """Open Inference Protocol v2: the model's metadata is checked before the first question, and after a wrong answer.

    A model that was replaced by another one is so found out, and one that was mended.
    """

    def __init__(
        self, link: Link, model: str, clock: Callable[[], float] = time.monotonic, tensors: TensorNames = TENSORS
    ) -> None:
        """Ask `model` at the link's endpoint, with `tensors` for inputs and outputs; `clock` gives seconds."""
        self._link, self._model, self._clock, self._tensors = link, model, clock, tensors
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._kinds: Kinds | None = None

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return what the model infers from the state vector."""
        until_s = self._clock() + timeout_s
        kinds = self._kinds or await self._fit(timeout_s)
        body = orjson.dumps(inference(request, kinds, self._tensors))
        try:
            reply = await self._link.call("POST", f"{self._path}/infer", body, until_s - self._clock())
            return inferred(reply.raw, request.decision_id, self._model, kinds, self._tensors, place=reply.place)
        except InvalidAdviceException as error:
            self._kinds = None
            raise NoAnswer("invalid", str(error)) from None
        except NoAnswer as error:
            if error.reason != "timeout":
                self._kinds = None
            raise

    async def check(self, timeout_s: float) -> None:
        """Look at the model's metadata."""
        await self._fit(timeout_s)

    @property
    def undeclared(self) -> bool:
        """Whether the metadata that was seen declares no outputs, so that the answers alone can be checked."""
        return self._kinds is not None and not self._kinds.outputs

    async def close(self) -> None:
        """Close the pool."""
        await self._link.close()

    async def _fit(self, timeout_s: float) -> Kinds:
        reply: Reply = await self._link.call("GET", self._path, None, timeout_s)
        try:
            self._kinds = fitting(reply.raw, self._model, self._tensors, place=reply.place)
        except InvalidAdviceException as error:
            raise NoAnswer("invalid", str(error)) from None
        return self._kinds


class Mock:
    """Noise in the shape of a policy: a function of seed and question, in process, no network.

    >>> Mock(7).decide("J-0-1-main", "momentum", "BTC-USD")
    (-0.22, 0.6)
    """

    def __init__(self, seed: int = 0) -> None:
        """Answer by `seed`."""
        self._seed = seed

    def decide(self, decision_id: str, strategy_id: str, symbol: str) -> tuple[float, float]:
        """Return nudge and confidence: within ±.3 and from .5 to 1, in steps of a hundredth."""
        text = f"{self._seed}|{decision_id}|{strategy_id}|{symbol}"
        digest = sha256(text.encode()).digest()
        return (digest[0] % 61 - 30) / 100, (50 + digest[1] % 51) / 100

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:  # noqa: ARG002 it takes no time
        """Return the answer at once."""
        nudge, confidence = self.decide(request.decision_id, request.strategy_id, request.symbol)
        version = f"mock-{self._seed}"
        raw = orjson.dumps({"confidence": confidence, "model_version": version, "nudge": nudge}).decode()
        return Answer(nudge, confidence, version, None, None, raw)

    async def check(self, timeout_s: float) -> None:
        """Be there."""

    async def close(self) -> None:
        """Have nothing to close."""


class Nobody:
    """No endpoint is named: nobody is asked."""

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Raise that there is nobody."""
        _ = request, timeout_s
        raise NoAnswer("disabled", DISABLED)

    async def check(self, timeout_s: float) -> None:
        """Know that there is nobody."""

    async def close(self) -> None:
        """Have nothing to close."""


def adapter(
    protocol: PolicyProtocols,
    endpoint: str | None,
    *,
    model: str = "policy",
    seed: int = 0,
    tensors: TensorNames = TENSORS,
    connections: int = 128,
    token: str | None = None,
    proxy: str | None = None,
) -> Adapter:
    """Return the adapter of a protocol; `endpoint` None asks nobody, except for `mock`, which needs none."""
    if protocol == "mock":
        return Mock(seed)
    if endpoint is None:
        return Nobody()
    link = Link(endpoint, connections=connections, token=token, proxy=proxy)
    return Predict(link) if protocol == "predict" else OpenInference(link, model, tensors=tensors)


def question(request: RlRequest) -> dict[str, Any]:
    """Return the body of the mission's request."""
    return {
        "symbol": request.symbol,
        "action": request.action,
        "confidence": request.confidence,
        "risk_score": request.risk_score,
        "regime": request.regime,
        "expected_return": request.expected_return,
        "predicted_volatility": request.predicted_volatility,
        "market_data": {
            "decision_id": request.decision_id,
            "horizon_s": request.horizon_s,
            "portfolio_value": request.portfolio_value,
            "price": request.price,
            "state": request.state,
            "w_base": request.w_base,
        },
    }


def inference(request: RlRequest, kinds: Kinds, tensors: TensorNames = TENSORS) -> dict[str, Any]:
    """Return the body of an Open Inference request: the state vector, and which outputs are read.

    A model that declares no outputs is asked for all that it has.
    """
    state = {"name": tensors.state, "shape": [1, len(request.state)], "datatype": kinds.state, "data": request.state}
    body: dict[str, Any] = {"id": request.decision_id, "inputs": [state]}
    return body | ({"outputs": [{"name": name} for name in kinds.outputs]} if kinds.outputs else {})

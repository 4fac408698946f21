"""Policy adapters: one per protocol, to send a question and parse the answer."""

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
    """Interface of a policy adapter."""

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return the policy's validated answer within `timeout_s` of wall time.

        Raises:
            NoAnswer: there is no valid answer; carries the reason.
        """

    async def check(self, timeout_s: float) -> None:
        """Check the endpoint before the first question. Raises: NoAnswer: it cannot be used."""

    async def close(self) -> None:
        """Close all connections."""


class Predict:
    """The `predict` protocol: JSON about a signal, answered by a position as a ratio of portfolio value."""

    def __init__(self, link: Link) -> None:
        """POST to the link's endpoint."""
        self._link = link

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return the policy's position, converted to a nudge."""
        reply = await self._link.call("POST", "", orjson.dumps(question(request)), timeout_s)
        try:
            return predicted(reply.raw, request.w_base, place=reply.place)
        except InvalidAdviceException as error:
            raise NoAnswer("invalid", str(error)) from None

    async def check(self, timeout_s: float) -> None:
        """Do nothing: the protocol has no metadata."""

    async def close(self) -> None:
        """Close the connection pool."""
        await self._link.close()


class OpenInference:
    """Open Inference Protocol v2. Checks the model's metadata before the first question and after an invalid answer.

    This detects a model that was replaced or fixed in the meantime.
    """

    def __init__(
        self, link: Link, model: str, clock: Callable[[], float] = time.monotonic, tensors: TensorNames = TENSORS
    ) -> None:
        """Ask `model` at the link's endpoint, with `tensors` for inputs and outputs; `clock` gives seconds."""
        self._link, self._model, self._clock, self._tensors = link, model, clock, tensors
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._kinds: Kinds | None = None

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Return the model's answer to the state vector."""
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
        """Check the model's metadata."""
        await self._fit(timeout_s)

    @property
    def undeclared(self) -> bool:
        """Whether the last metadata declared no outputs, so that only the answers can be checked."""
        return self._kinds is not None and not self._kinds.outputs

    async def close(self) -> None:
        """Close the connection pool."""
        await self._link.close()

    async def _fit(self, timeout_s: float) -> Kinds:
        reply: Reply = await self._link.call("GET", self._path, None, timeout_s)
        try:
            self._kinds = fitting(reply.raw, self._model, self._tensors, place=reply.place)
        except InvalidAdviceException as error:
            raise NoAnswer("invalid", str(error)) from None
        return self._kinds


class Mock:
    """Deterministic noise in place of a policy: a function of seed and question, in process, without network.

    >>> Mock(7).decide("J-0-1-main", "momentum", "BTC-USD")
    (-0.22, 0.6)
    """

    def __init__(self, seed: int = 0) -> None:
        """Derive all answers from `seed`."""
        self._seed = seed

    def decide(self, decision_id: str, strategy_id: str, symbol: str) -> tuple[float, float]:
        """Return (nudge in [-0.3, 0.3], confidence in [0.5, 1]), in steps of 0.01."""
        text = f"{self._seed}|{decision_id}|{strategy_id}|{symbol}"
        digest = sha256(text.encode()).digest()
        return (digest[0] % 61 - 30) / 100, (50 + digest[1] % 51) / 100

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:  # noqa: ARG002 it takes no time
        """Return the answer immediately."""
        nudge, confidence = self.decide(request.decision_id, request.strategy_id, request.symbol)
        version = f"mock-{self._seed}"
        raw = orjson.dumps({"confidence": confidence, "model_version": version, "nudge": nudge}).decode()
        return Answer(nudge, confidence, version, None, None, raw)

    async def check(self, timeout_s: float) -> None:
        """Do nothing: always available."""

    async def close(self) -> None:
        """Do nothing."""


class Nobody:
    """Adapter for a configuration without an endpoint: every question fails as `disabled`."""

    async def ask(self, request: RlRequest, timeout_s: float) -> Answer:
        """Raise NoAnswer("disabled")."""
        _ = request, timeout_s
        raise NoAnswer("disabled", DISABLED)

    async def check(self, timeout_s: float) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


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
    """Return the adapter for a protocol. Without an endpoint it is `Nobody`, except for `mock`, which needs none."""
    if protocol == "mock":
        return Mock(seed)
    if endpoint is None:
        return Nobody()
    link = Link(endpoint, connections=connections, token=token, proxy=proxy)
    return Predict(link) if protocol == "predict" else OpenInference(link, model, tensors=tensors)


def question(request: RlRequest) -> dict[str, Any]:
    """Return the body of a `predict` request."""
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
    """Return the body of an Open Inference request: the state vector and the requested outputs.

    A model that declares no outputs is asked for all that it has.
    """
    state = {"name": tensors.state, "shape": [1, len(request.state)], "datatype": kinds.state, "data": request.state}
    body: dict[str, Any] = {"id": request.decision_id, "inputs": [state]}
    return body | ({"outputs": [{"name": name} for name in kinds.outputs]} if kinds.outputs else {})

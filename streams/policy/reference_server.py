"""A reference policy endpoint on localhost: both protocols, an untrained policy, and switches to inject faults.

Source: Open Inference Protocol v2 (KServe), REST.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

import orjson
from aiohttp import web
from pydantic import Field

from engines.handlers.policy_request import FEATURES
from schemas import wire
from schemas.base import Message
from schemas.errors import InvalidMessage
from schemas.units import Reading, Unit
from streams.policy.transformer import Opinion, Transformer

MODEL: Final = "policy"
HOST: Final = "127.0.0.1"
QUESTION_BYTES_MAX: Final = 1 << 20
SIDE: Final = {"strong_buy": 1.0, "buy": 1.0, "hold": 0.0, "sell": -1.0, "strong_sell": -1.0}

Wrong = Literal[
    "nan", "position", "missing", "id", "shape", "datatype", "doubled", "large", "html", "empty", "redirect", "status"
]
WRONGS: Final[tuple[Wrong, ...]] = get_args(Wrong)
ServedProtocols = Literal["oip", "predict", "both"]


class Switches(NamedTuple):
    """Injected faults."""

    slow_s: float = 0.0
    """Delay of every answer, s."""
    wrong: Wrong | None = None
    """Defect of every answer."""
    dead: bool = False
    """Whether every connection is dropped."""
    error_rate: float = 0.0
    """Share of questions answered with status 500, drawn from a seeded generator."""


class Given(Message):
    """One input of an Open Inference question."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Inference(Message):
    """An Open Inference question."""

    id: str = ""
    inputs: list[Given]


class MarketData(Message):
    """The fields that the himari worker adds to a `predict` question."""

    state: Annotated[list[Reading], Field(min_length=len(FEATURES), max_length=len(FEATURES))] | None = None
    w_base: float = 0.1


class Prediction(Message):
    """A `predict` question."""

    symbol: str
    action: Literal["strong_buy", "buy", "hold", "sell", "strong_sell"]
    confidence: Unit
    risk_score: Unit
    expected_return: float = 0.0
    predicted_volatility: float = 0.0
    market_data: MarketData = MarketData()


class Endpoint:
    """The HTTP application of the reference policy."""

    def __init__(
        self, *, seed: int = 0, protocol: ServedProtocols = "both", switches: Switches | None = None, model: str = MODEL
    ) -> None:
        """Serve `model` with weights drawn from `seed`; without `switches` there are no faults."""
        self.transformer = Transformer(seed)
        self.model = model
        self.switches = switches or Switches()
        self.answered = 0
        self._protocol = protocol
        self._rng = random.Random(seed)  # noqa: S311 not a secret

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._faults], client_max_size=QUESTION_BYTES_MAX)
        if self._protocol != "predict":
            app.router.add_get("/v2", self._server)
            app.router.add_get("/v2/health/{what:live|ready}", _healthy)
            app.router.add_get("/v2/models/{model}", self._metadata)
            app.router.add_get("/v2/models/{model}/ready", self._metadata)
            app.router.add_post("/v2/models/{model}/infer", self._infer)
        if self._protocol != "oip":
            app.router.add_post("/predict", self._predict)
        return app

    # -- faults --------------------------------------------------------------------------------------------------------
    @web.middleware
    async def _faults(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        switches = self.switches
        if switches.dead:
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable
        if request.method != "POST":
            return await handler(request)
        if switches.slow_s:
            await asyncio.sleep(switches.slow_s)
        if switches.error_rate and self._rng.random() < switches.error_rate:
            return _json({"error": "the switch --error-rate"}, status=500)
        try:
            return await handler(request)
        except InvalidMessage as error:
            return _json({"error": str(error)}, status=400)

    # -- Open Inference ------------------------------------------------------------------------------------------------
    async def _server(self, _request: web.Request) -> web.Response:
        return _json({"name": "himari-reference-policy", "version": self.transformer.version, "extensions": []})

    async def _metadata(self, request: web.Request) -> web.Response:
        self._known(request)
        numbers = ("nudge", "confidence", "predicted_return", "predicted_volatility")
        return _json(
            {
                "name": self.model,
                "versions": [self.transformer.version],
                "platform": "numpy_transformer_untrained_random_weights",
                "inputs": [{"name": "state", "datatype": "FP64", "shape": [1, len(FEATURES)]}],
                "outputs": [{"name": name, "datatype": "FP64", "shape": [1]} for name in numbers],
            }
        )

    async def _infer(self, request: web.Request) -> web.Response:
        self._known(request)
        asked = wire.decode(Inference, await request.read(), place="infer")
        state = _state_of(asked)
        if isinstance(state, str):
            return _json({"error": state}, status=400)
        opinion = self.transformer.opinion(state)
        self.answered += 1
        return self._respond(
            {
                "model_name": self.model,
                "model_version": self.transformer.version,
                "id": asked.id,
                "outputs": [
                    {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
                    for name, value in opinion._asdict().items()
                ],
            }
        )

    def _known(self, request: web.Request) -> None:
        if request.match_info["model"] != self.model:
            raise web.HTTPNotFound(
                text=orjson.dumps({"error": f"no such model; there is {self.model}"}).decode(),
                content_type="application/json",
            )

    # -- predict -------------------------------------------------------------------------------------------------------
    async def _predict(self, request: web.Request) -> web.Response:
        asked = wire.decode(Prediction, await request.read(), place="predict")
        opinion = self.transformer.opinion(asked.market_data.state or _guessed(asked))
        self.answered += 1
        position = max(-1.0, min(1.0, asked.market_data.w_base * (1.0 + opinion.nudge)))
        return self._respond(
            {
                "position_pct": position,
                "confidence": opinion.confidence,
                "predicted_return": opinion.predicted_return,
                "predicted_volatility": opinion.predicted_volatility,
                "model_version": self.transformer.version,
            }
        )

    # -- defects -------------------------------------------------------------------------------------------------------
    def _respond(self, body: dict[str, Any]) -> web.Response:
        """Return the answer, with the defect of the switch `wrong` if set."""
        wrong = self.switches.wrong
        if wrong == "redirect":
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        if wrong == "status":
            return _json({"error": "the switch --wrong status"}, status=500)
        if wrong == "html":
            return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")
        raw = orjson.dumps(body if wrong is None else _wrong(body, wrong))
        if wrong == "nan":
            raw = raw.replace(b'"@"', b"NaN")
        elif wrong == "doubled":
            raw = raw[:-1] + b"," + raw[1:]
        elif wrong == "empty":
            raw = b""
        return web.Response(body=raw, content_type="application/json")


NUMBER: Final[dict[str, dict[str, Any]]] = {
    "nan": {"position_pct": "@"},
    "position": {"position_pct": 4.0},
    "missing": {"confidence": None},
    "id": {"confidence": "0.8"},
    "shape": {"confidence": [0.8]},
    "datatype": {"confidence": "0.8"},
}
"""Defects of a `predict` answer, which has no ids, shapes and datatypes of its own."""
TENSOR: Final[dict[str, dict[str, Any]]] = {
    "nan": {"data": ["@"]},
    "position": {"data": [4.0]},
    "shape": {"shape": [2], "data": [0.1, 0.2]},
    "datatype": {"datatype": "INT64", "data": [0]},
}
"""Defects of the first output of an Open Inference answer."""


def _wrong(body: dict[str, Any], wrong: Wrong) -> dict[str, Any]:
    """Return an answer with one defect."""
    if wrong == "large":
        return body | {"padding": "x" * 10_000_000}
    outputs: list[dict[str, Any]] | None = body.get("outputs")
    if outputs is None:
        return body | NUMBER.get(wrong, {})
    if wrong == "id":
        return body | {"id": "another"}
    first = outputs[0] | TENSOR.get(wrong, {})
    return body | {"outputs": outputs[1:] if wrong == "missing" else [first, *outputs[1:]]}


def _state_of(asked: Inference) -> list[float] | str:
    """Return the state vector of a question, or an error text."""
    wanted = [1, len(FEATURES)]
    if len(asked.inputs) != 1 or asked.inputs[0].name != "state":
        return "inputs: must be exactly one, named state"
    given = asked.inputs[0]
    if given.shape != wanted or given.datatype != "FP64":
        return f"inputs.0: must be FP64 of shape {wanted}, was {given.datatype} of shape {given.shape}"
    flat = given.data[0] if len(given.data) == 1 and isinstance(given.data[0], list) else given.data
    if len(flat) != len(FEATURES) or not all(type(each) in {int, float} for each in flat):
        return f"inputs.0.data: must be {len(FEATURES)} numbers"
    return [float(each) for each in flat]


def _guessed(asked: Prediction) -> list[float]:
    """Return a state vector from the `predict` fields alone; unknown features are 0."""
    known = {
        "side": SIDE[asked.action],
        "confidence": asked.confidence,
        "risk_score": asked.risk_score,
        "expected_return": asked.expected_return,
        "volatility": asked.predicted_volatility,
        "base_weight": asked.market_data.w_base,
    }
    return [known.get(name, 0.0) for name in FEATURES]


async def _healthy(_request: web.Request) -> web.Response:
    return _json({})


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


class Serving(NamedTuple):
    """A running endpoint."""

    endpoint: Endpoint
    runner: web.AppRunner
    port: int

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{HOST}:{self.port}"


async def serve(endpoint: Endpoint, port: int = 0) -> Serving:
    """Serve an endpoint on localhost; port 0 picks a free one. Raises: OSError: the port is in use."""
    runner = web.AppRunner(endpoint.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    found: int = runner.addresses[0][1]
    return Serving(endpoint, runner, found)


__all__ = ["MODEL", "WRONGS", "Endpoint", "Opinion", "Serving", "Switches", "serve"]

"""The policy stage of a worker: the side agent on `rl-requests`, and its settings."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import faust
import orjson

from config.policy import RlSettings, TensorNames
from config.security import bearer_token
from config.settings import Settings
from engines.models.circuit_breaker import Breaker, BreakerParams
from engines.parameters import RlParams
from schemas.errors import ConfigurationException
from streams.monitoring.policy import PolicyMetrics
from streams.policy.adapters import Adapter, adapter
from streams.policy.agent import SideAgent
from streams.policy.answer import NoAnswer
from streams.policy.client import PolicyClient
from streams.processing.ports import Send

logger = logging.getLogger(__name__)

ENDPOINT_KEYS: Final = ("protocol", "endpoint", "model", "tensors", "proxy", "seed", "token_env", "token_file")
"""A change of one of these means another endpoint: a new connection pool and a new circuit breaker."""
KEYS: Final = frozenset(
    {f"rl.{name}" for name in RlSettings.model_fields if name not in (*RlParams.model_fields, "tensors")}
    | {f"rl.tensors.{name}" for name in TensorNames.model_fields}
    | {f"circuit_breaker.{name}" for name in BreakerParams.model_fields}
)
SECRET_BYTES_MAX: Final = 65_536


class WorkerPolicy:
    """The side agent of one worker, and the policy client of its settings.

    Raises:
        ConfigurationException: the token cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], int],
        send: Callable[[list[Send]], Awaitable[None]],
        metrics: PolicyMetrics,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        """Build the agent; no question is asked yet."""
        self._rl, self._env, self._clock, self._metrics = settings.rl, env, clock, metrics
        self.agent = SideAgent(
            self._client(settings, adapter_of(settings.rl, env)),
            max_in_flight=settings.rl.max_in_flight,
            partitions=settings.topics.partitions,
            clock=clock,
            send=send,
            watcher=metrics,
        )
        metrics.watch(self.agent.desk)
        self._checking: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Journal answers until cancelled; at the start, log whether the endpoint is usable."""
        await asyncio.gather(self._check(), self.agent.run())

    async def change(self, settings: Settings) -> None:
        """Apply other settings; questions in flight keep the settings they were asked with.

        Raises:
            ConfigurationException: the token cannot be read; nothing is changed.
        """
        before, self._rl = self._rl, settings.rl
        old = self.agent.desk
        if any(getattr(before, name) != getattr(settings.rl, name) for name in ENDPOINT_KEYS):
            try:
                made = adapter_of(settings.rl, self._env)
            except ConfigurationException:
                self._rl = before
                raise
            desk = self._client(settings, made)
        else:
            old.timeout_s, old.params = settings.rl.timeout_sec, settings.circuit_breaker
            desk = old
        self.agent.replace(desk, settings.rl.max_in_flight)
        self._metrics.watch(desk)
        if desk is not old:
            self._checking = asyncio.ensure_future(self._check())  # other settings need not wait for an endpoint

    async def stop(self) -> None:
        """Stop at once; questions in flight are cancelled."""
        if self._checking is not None:
            self._checking.cancel()
        await self.agent.stop()

    def _client(self, settings: Settings, made: Adapter) -> PolicyClient:
        return PolicyClient(
            made,
            timeout_s=settings.rl.timeout_sec,
            params=settings.circuit_breaker,
            clock=self._clock,
            breaker_clock=time.monotonic_ns,
            observe=self._turned,
        )

    async def _check(self) -> None:
        """Log a warning if the endpoint is not usable, or gets our token unencrypted; nothing else depends on it."""
        if self._rl.in_the_clear:
            logger.warning("rl.endpoint: the token is sent to %s unencrypted: use https://", self._rl.endpoint)
        try:
            await self.agent.desk.adapter.check(self.agent.desk.timeout_s)
        except NoAnswer as error:
            logger.warning("the policy endpoint is not usable: %s", error)

    def _turned(self, before: Breaker, after: Breaker) -> None:
        """Raise an alert that the circuit breaker changed state."""
        self._metrics.turned()
        logger.warning("policy breaker: %s, was %s", after.status, before.status)
        self.agent.tell(breaker_alert(before.status, after.status, self._rl, self._clock()))


def adapter_of(rl: RlSettings, env: Mapping[str, str]) -> Adapter:
    """Return the adapter that the settings select.

    Raises:
        ConfigurationException: the token cannot be read; its value is not shown.
    """
    return adapter(
        rl.protocol,
        rl.endpoint,
        model=rl.model,
        seed=rl.seed,
        tensors=rl.tensors,
        connections=rl.max_in_flight,
        token=token_of(rl, env),
        proxy=rl.proxy,
    )


def token_of(rl: RlSettings, env: Mapping[str, str]) -> str | None:
    """Return the bearer token of the settings, None if they name none.

    Raises:
        ConfigurationException: it is missing, empty or not printable; its value is not shown.
    """
    if rl.token_env is not None:
        field, found = "rl.token_env", env.get(rl.token_env, "")
    elif rl.token_file is not None:
        field = "rl.token_file"
        try:
            with Path(rl.token_file).open("rb") as file:
                found = file.read(SECRET_BYTES_MAX).decode("ascii", "replace")
        except OSError as error:
            raise ConfigurationException("settings", field, f"must be readable: {error.strerror}") from error
    else:
        return None
    token = bearer_token(found)
    if token is None:
        rule = "must name a token of printable ASCII (its value is not shown)"
        raise ConfigurationException("settings", field, rule)
    return token


def breaker_alert(before: str, after: str, rl: RlSettings, now_ns: int) -> Send:
    """Return the alert that the circuit breaker changed state; it is not journaled."""
    body = {
        "alert_id": f"breaker-{now_ns}-{after}",
        "journal": None,
        "kind": "breaker",
        "result": f"{after}, was {before}",
        "severity": "warning" if after == "open" else "info",
        "subject": (rl.endpoint or rl.protocol)[:256],
        "threshold": None,
        "timestamp_ns": now_ns,
        "value": None,
    }
    return Send("alerts", None, b"breaker", orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def ask_on(app: faust.App, topic: str, agent: SideAgent) -> None:
    """Create the Faust agent of `rl-requests` (its name on the broker), which acknowledges questions at once.

    A question that is lost with its worker is closed by its deadline, in the journal.
    """
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)

    async def take(stream: faust.StreamT[Any]) -> None:
        async for event in stream.noack().events():
            agent.take([record.value for record in event.value])
            event.ack()

    app.agent(channel, name=f"{topic}-policy")(take)

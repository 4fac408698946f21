"""The mission's third class: the portfolio, and a policy that may nudge it.

The rules' allocation is there before anybody is asked. An answer that counts revises it; whatever goes wrong with the
policy, the rules' allocation stands.
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any

from config.load import load
from engines.handlers.effects import FoldResult
from schemas.cascade import CascadeIndicators
from schemas.rl import RlRequest
from schemas.signal import TacticalSignal
from schemas.vocabulary import PolicyMode
from streams.library.session import EnsembleAllocation, Library, of_one_portfolio, readings
from streams.policy.adapters import Mock, Nobody, adapter
from streams.policy.client import Outcome, PolicyClient
from streams.stages.control import mode_order

Cascades = CascadeIndicators | Mapping[str, Any] | Sequence[CascadeIndicators | Mapping[str, Any]] | None


class Layer3Phase3Hybrid(Library):
    """Several strategies and symbols, and a policy that is asked about each signal.

    In mode `shadow`, the default, its answers are scored and change nothing; in mode `live` they nudge sizes as soon
    as the evidence has opened the gate.

    >>> layer3 = Layer3Phase3Hybrid(portfolio_value=100_000, enable_rl=True, use_mock_rl=True, enable_metrics=False)
    >>> signal = {
    ...     "strategy_id": "momentum", "symbol": "BTC-USD", "action": "buy", "confidence": 0.8, "risk_score": 0.2,
    ...     "regime": "ranging", "timestamp_ns": 1_700_000_000_000_000_000,
    ...     "expected_return": 0.01, "predicted_volatility": 0.02,
    ... }
    >>> found = layer3.process_signals([signal], None, {"BTC-USD": 43_500.0})
    >>> found.allocations, found.rl["mode"]
    ({'BTC-USD': 3851.39}, 'shadow')
    >>> layer3.stop()
    """

    def __init__(
        self,
        portfolio_value: float | None = None,
        *,
        enable_rl: bool | None = None,
        use_mock_rl: bool = False,
        rl_endpoint: str | None = None,
        rl_timeout_sec: float | None = None,
        rl_mode: PolicyMode | None = None,
        enable_metrics: bool = True,
        enable_hot_reload: bool = True,
        config: str | Path | None = None,
    ) -> None:
        """Take the settings of a file, if one is named; an argument given here wins over it.

        Args:
            portfolio_value: equity, USD.
            enable_rl: whether the policy is asked at all; without it this is the portfolio alone.
            use_mock_rl: a seeded policy in process, for tests.
            rl_endpoint: URL of a policy that speaks the mission's protocol.
            rl_timeout_sec: seconds that it may take.
            rl_mode: how far it may act; shadow where nothing is said.
            enable_metrics: whether metrics are kept.
            enable_hot_reload: whether a change of the file is taken.
            config: settings file.

        Raises:
            ConfigurationException: a setting is not acceptable.
        """
        protocol = "mock" if use_mock_rl else None if rl_endpoint is None else "predict"
        chosen = {
            "portfolio.initial_value_usd": portfolio_value,
            "rl.enabled": enable_rl,
            "rl.mode": rl_mode,
            "rl.protocol": protocol,
            "rl.endpoint": rl_endpoint,
            "rl.timeout_sec": rl_timeout_sec,
        }
        super().__init__(chosen, config, enable_metrics=enable_metrics, enable_hot_reload=enable_hot_reload)
        self._desk = self._open_desk(chosen, config)
        self._own = None if isinstance(self._desk.adapter, Mock | Nobody) else OwnLoop()

    def process_signals(
        self,
        signals: Sequence[TacticalSignal | Mapping[str, Any]],
        cascade: Cascades,
        prices: Mapping[str, float],
    ) -> EnsembleAllocation:
        """Return the allocation of several signals of one portfolio, after the policy's answers where they count.

        Args:
            signals: one at least, all of one portfolio.
            cascade: readings of one symbol or of the market, several of them, or None.
            prices: by symbol.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value;
                nothing of the call is taken then.
        """
        folded = self._size(of_one_portfolio(signals), readings(cascade), prices)
        asked = [RlRequest.model_validate(each) for each in folded.requests]
        if self._own is None:
            outcomes = [_at_once(self._desk.answer(request)) for request in asked]
        else:
            outcomes = self._own.run(self._answers(asked)).result() if asked else []
        return self._revised(folded, outcomes)

    async def process_signals_async(
        self,
        signals: Sequence[TacticalSignal | Mapping[str, Any]],
        cascade: Cascades,
        prices: Mapping[str, float],
    ) -> EnsembleAllocation:
        """As `process_signals`, but other tasks go on while the policy is asked."""
        folded = self._size(of_one_portfolio(signals), readings(cascade), prices)
        asked = [RlRequest.model_validate(each) for each in folded.requests]
        if self._own is None or not asked:
            outcomes = await self._answers(asked)
        else:
            outcomes = await asyncio.wrap_future(self._own.run(self._answers(asked)))
        return self._revised(folded, outcomes)

    def set_rl_mode(self, mode: PolicyMode, reason: str = "") -> None:
        """Say how far the policy may act; evidence that had closed the gate is put aside, and collected anew."""
        now_ns = self._core.now_ns
        self._feed("control", mode_order(mode, "all", reason, "library", now_ns, f"rl-{mode}-{now_ns}"), now_ns)

    def get_performance_comparison(self, portfolio_id: str = "main") -> dict[str, Any]:
        """Return policy against rules (see the portfolio's), and how the policy's breaker stands."""
        breaker = self._desk.status()
        return {**super().get_performance_comparison(portfolio_id), "breaker": breaker.status}

    def stop(self) -> None:
        """Stop at once: questions on their way are given up."""
        super().stop()
        if self._own is not None:
            self._own.stop(self._desk.adapter.close())

    def _open_desk(self, chosen: Mapping[str, object], config: str | Path | None) -> PolicyClient:
        given = {key: value for key, value in chosen.items() if value is not None}
        settings = load(config, None, given).settings
        rl = settings.rl
        return PolicyClient(
            adapter(rl.protocol, rl.endpoint, model=rl.model, seed=rl.seed, connections=rl.max_in_flight),
            timeout_s=rl.timeout_sec,
            params=settings.circuit_breaker,
            clock=lambda: self._core.now_ns,
            breaker_clock=monotonic_ns,
        )

    async def _answers(self, asked: Sequence[RlRequest]) -> list[Outcome]:
        return list(await asyncio.gather(*map(self._desk.answer, asked)))

    def _revised(self, folded: FoldResult, outcomes: Sequence[Outcome]) -> EnsembleAllocation:
        """Journal the answers, all of them one entry; return the newest allocation of this call."""
        published = folded.allocations
        if outcomes:
            answers = [outcome.result.model_dump(exclude_none=True) for outcome in outcomes]
            published = self._feed("call", {"answers": answers}, self._core.now_ns).allocations or published
        return EnsembleAllocation(published[-1].value)


class OwnLoop:
    """An event loop on a thread of its own, so that a call may wait for a network whatever loop its caller has."""

    def __init__(self) -> None:
        """Begin to run."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="himari-policy", daemon=True)
        self._thread.start()

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Return a future of what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(step, self._loop)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, let `last` clean up, and end; a second time it does nothing."""
        if self._loop.is_closed():
            last.close()
            return
        self.run(self._finish(last)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _finish(last: Coroutine[Any, Any, None]) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await last


def _at_once(step: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run a coroutine that has nothing to wait for."""
    try:
        step.send(None)
    except StopIteration as end:
        found: Outcome = end.value
        return found
    step.close()
    msg = "a policy in process waited for something"
    raise RuntimeError(msg)

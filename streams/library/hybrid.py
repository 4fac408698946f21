"""Phase 3: the portfolio of phase 2, plus a policy that may nudge its sizes.

The rules decide before the policy is asked. A valid answer can revise the allocation; if the policy fails in any way,
the rules' allocation remains in force.
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
from streams.library.decisions import EnsembleAllocation
from streams.library.session import Library, of_one_portfolio, readings
from streams.policy.adapters import Mock, Nobody, adapter
from streams.policy.client import Outcome, PolicyClient
from streams.processing.immediate import result_of
from streams.stages.control import mode_order

Cascades = CascadeIndicators | Mapping[str, Any] | Sequence[CascadeIndicators | Mapping[str, Any]] | None


class Layer3Phase3Hybrid(Library):
    """Sizes several strategies and symbols, and asks a policy about each signal.

    In mode `shadow` (default) answers are scored but change nothing. In mode `live` they nudge sizes once the evidence
    has opened the gate.

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
        """Load settings from `config`, if given; other arguments override it.

        Args:
            portfolio_value: equity, USD.
            enable_rl: whether to ask the policy; if not, this is phase 2.
            use_mock_rl: use a seeded in-process policy, for tests.
            rl_endpoint: URL of a policy that speaks the `predict` protocol (docs/hybrid.md).
            rl_timeout_sec: timeout of one question, s.
            rl_mode: how far the policy may act; default shadow.
            enable_metrics: whether to collect metrics.
            enable_hot_reload: whether to apply changes of the settings file.
            config: settings file.

        Raises:
            ConfigurationException: a setting is invalid.
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
        """Return the allocation of one or more signals of one portfolio, including the policy's answers if they apply.

        Args:
            signals: at least one, all of the same portfolio.
            cascade: readings of one symbol or of the market, a sequence of them, or None.
            prices: price by symbol.

        Raises:
            InvalidSignalException, InvalidCascadeIndicatorsException, InvalidPriceException: place, rule and value;
                the call then has no effect.
        """
        folded = self._size(of_one_portfolio(signals), readings(cascade), prices)
        asked = [RlRequest.model_validate(each) for each in folded.requests]
        if self._own is None:
            outcomes = [result_of(self._desk.answer(request)) for request in asked]
        else:
            outcomes = self._own.run(self._answers(asked)).result() if asked else []
        return self._revised(folded, outcomes)

    async def process_signals_async(
        self,
        signals: Sequence[TacticalSignal | Mapping[str, Any]],
        cascade: Cascades,
        prices: Mapping[str, float],
    ) -> EnsembleAllocation:
        """Like `process_signals`, without blocking the event loop while the policy is asked."""
        folded = self._size(of_one_portfolio(signals), readings(cascade), prices)
        asked = [RlRequest.model_validate(each) for each in folded.requests]
        if self._own is None or not asked:
            outcomes = await self._answers(asked)
        else:
            outcomes = await asyncio.wrap_future(self._own.run(self._answers(asked)))
        return self._revised(folded, outcomes)

    def set_rl_mode(self, mode: PolicyMode, reason: str = "") -> None:
        """Set how far the policy may act. If the gate was closed, its evidence is reset."""
        now_ns = self._core.now_ns
        self._feed("control", mode_order(mode, "all", reason, "library", now_ns, f"rl-{mode}-{now_ns}"), now_ns)

    def get_performance_comparison(self, portfolio_id: str = "main") -> dict[str, Any]:
        """Return the comparison of policy and rules (see `Library`), plus the status of the circuit breaker."""
        breaker = self._desk.status()
        return {**super().get_performance_comparison(portfolio_id), "breaker": breaker.status}

    def get_state(self) -> dict[str, Any]:
        """Return diagnostics (see `Library`), plus the state of the circuit breaker."""
        return {**super().get_state(), "breaker": self._desk.status()._asdict()}

    def stop(self) -> None:
        """Stop immediately; questions in flight are cancelled."""
        super().stop()
        if self._own is not None:
            self._own.stop(self._desk.adapter.close())

    def _open_desk(self, chosen: Mapping[str, object], config: str | Path | None) -> PolicyClient:
        given = {key: value for key, value in chosen.items() if value is not None}
        settings = load(config, None, given).settings
        rl = settings.rl
        return PolicyClient(
            adapter(
                rl.protocol,
                rl.endpoint,
                model=rl.model,
                seed=rl.seed,
                tensors=rl.tensors,
                connections=rl.max_in_flight,
                proxy=rl.proxy,
            ),
            timeout_s=rl.timeout_sec,
            params=settings.circuit_breaker,
            clock=lambda: self._core.now_ns,
            breaker_clock=monotonic_ns,
        )

    async def _answers(self, asked: Sequence[RlRequest]) -> list[Outcome]:
        return list(await asyncio.gather(*map(self._desk.answer, asked)))

    def _revised(self, folded: FoldResult, outcomes: Sequence[Outcome]) -> EnsembleAllocation:
        """Journal all answers as one entry; return the newest allocation of this call."""
        published = folded.allocations
        if outcomes:
            answers = [outcome.result.model_dump(exclude_none=True) for outcome in outcomes]
            published = self._feed("call", {"answers": answers}, self._core.now_ns).allocations or published
        return EnsembleAllocation(published[-1].value)


class OwnLoop:
    """An event loop in its own thread, for network calls independent of the caller's loop."""

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="himari-policy", daemon=True)
        self._thread.start()

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine; return its future."""
        return asyncio.run_coroutine_threadsafe(step, self._loop)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel running tasks, run `last` to clean up, and stop the thread. Calling it again has no effect."""
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

"""Notes: how each note of an engine is recorded as metrics."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engines.handlers.effects import Note
from streams.monitoring.families import REGIMES
from streams.monitoring.samples import Labels

if TYPE_CHECKING:
    from streams.monitoring.metrics import Metrics

NO_CANDIDATE: Final[dict[Labels, float]] = {(regime,): 0.0 for regime in REGIMES}


def ignore(_metrics: "Metrics", _note: Note, _partition: int) -> None:
    """Record nothing."""


def _duplicate(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("duplicates_dropped_total", by=note.value)


def _older(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("older_inputs_dropped_total", note.name.removeprefix("older_"), by=note.value)


def _refused_symbol(metrics: "Metrics", note: Note, partition: int) -> None:
    if partition == 0:
        metrics.count("refused_symbols_total", by=note.value)


def _suspect_price(metrics: "Metrics", note: Note, partition: int) -> None:
    if partition == 0:
        metrics.count("suspect_prices_total", by=note.value)


def _clipped_price(metrics: "Metrics", note: Note, partition: int) -> None:
    if partition == 0:
        metrics.count("clipped_prices_total", by=note.value)


def _clipped_claim(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("clipped_claims_total", note.label, by=note.value)


def _freed_slot(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("freed_slots_total", note.label, by=note.value)


def _trade(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("bayesian_trades_total", note.label, by=note.value)


def _correlation_alert(metrics: "Metrics", note: Note, partition: int) -> None:
    if partition == 0:
        metrics.count("correlation_alerts_total", by=note.value)


def _correlation_mean(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.set("correlation_mean_ratio", note.value)
    metrics.set("correlation_symbols", float(note.label))


def _residual(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.histograms["conformal_residuals"][()].observe(note.value)


def _level(metrics: "Metrics", note: Note, partition: int) -> None:
    if partition == 0:
        metrics.count("cascade_level_changes_total", note.label, by=note.value)


def _candidate(metrics: "Metrics", note: Note, _partition: int) -> None:
    progress = metrics.counts["regime_confirmation_progress"]
    progress.update(NO_CANDIDATE)
    progress[(note.label,)] = note.value


def _transition(metrics: "Metrics", note: Note, _partition: int) -> None:
    before, _, after = note.label.partition(">")
    metrics.count("regime_transitions_total", before, after, by=note.value)
    metrics.counts["regime_confirmation_progress"].update(NO_CANDIDATE)


def _false_flip(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("regime_false_flips_total", by=note.value)
    metrics.counts["regime_confirmation_progress"].update(NO_CANDIDATE)


def _advice(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("rl_answers_total", note.label, by=note.value)


def _scored(metrics: "Metrics", note: Note, _partition: int) -> None:
    metrics.count("rl_scored_total", by=note.value)


NOTES: Final[dict[str, Callable[["Metrics", Note, int], None]]] = {
    "duplicate": _duplicate,
    "duplicate_signal": _duplicate,
    "older_signal": _older,
    "older_positions": _older,
    "refused_symbol": _refused_symbol,
    "suspect_price": _suspect_price,
    "clipped_price": _clipped_price,
    "clipped_claim": _clipped_claim,
    "freed_slot": _freed_slot,
    "trade": _trade,
    "residual": _residual,
    "correlation_alert": _correlation_alert,
    "correlation_mean": _correlation_mean,
    "cascade_level": _level,
    "regime_candidate": _candidate,
    "regime_transition": _transition,
    "regime_false_flip": _false_flip,
    "advice": _advice,
    "scored": _scored,
}
"""Recorder for each note of an engine."""

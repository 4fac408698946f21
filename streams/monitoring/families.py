"""Every metric family, as data: `metrics.py` records them, and `docs/metrics.md` is generated from this table."""

from itertools import product
from typing import Final, Literal, NamedTuple, get_args

from engines.models.cascade import Components
from engines.pipeline.decide import RANKS
from schemas.rl import REASONS
from schemas.vocabulary import RECOMMENDATIONS, EntryKind, ErrorCode, Regime

PREFIX: Final = "himari_l3_"
OTHER: Final = "other"
"""Replaces label values outside the closed set, and those that come after the allow-list is full."""

Kind = Literal["counter", "gauge", "histogram"]
Combination = tuple[str, ...]


class Family(NamedTuple):
    """One metric family."""

    name: str
    """Without the prefix."""
    kind: Kind
    unit: str
    where: str
    """The event that records it."""
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    """Closed set of each label, or none for open sets. If all are closed, counters are exported as 0 from the start."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without infinity."""

    @property
    def full_name(self) -> str:
        """The exported name."""
        return PREFIX + self.name

    @property
    def combinations(self) -> list[Combination]:
        """Every combination of label values; none if a set is open."""
        return list(product(*self.values)) if len(self.values) == len(self.labels) else []


COMPONENTS: Final = Components._fields
STAGES: Final = (
    "conformal",
    "risk_score",
    "sentiment",
    "regime",
    "cascade",
    "drawdown",
    "ensemble",
    "portfolio",
    "cut",
    "caps",
    "limits",
    "band",
    "lots",
)
GATES: Final = {
    "no edge": "no_edge",
    "edge below min_edge": "min_edge",
    "win rate below min_win_rate": "min_win_rate",
    "halted": "halted",
    "forecast expired": "expired",
    "shorts are off": "no_shorts",
    "no price": "no_price",
    "stale price": "stale_price",
}
"""Reason for a size of zero → label."""
BUDGETS: Final = ("cell", "symbol", "strategy", "portfolio")
INPUTS: Final = ("signals", "cascade-indicators", "prices", "outcomes", "positions", "control")
PROCESSORS: Final = ("sizing", "market")
RECOVERY_SOURCES: Final = ("local", "changelog", "genesis")
RELOADS: Final = ("applied", "rejected", "unchanged", "conflict", OTHER)
ALERTS: Final = (
    "correlation",
    "drift",
    "cascade",
    "risk_budget",
    "breaker",
    "stale_price",
    "suspect_price",
    "suspect_equity",
    "clipped_claims",
    "missing_report",
    "missing_outcome",
    "late_prices",
    "clock_skew",
    "config_rejected",
    "control_applied",
    "fork",
    "rl_gate",
    OTHER,
)
TICKS: Final = {
    "late_tick": "late_ticks_total",
    "suspect_tick": "suspect_ticks_total",
    "clipped_tick": "clipped_ticks_total",
    "refused_tick": "refused_ticks_total",
}
"""Note on a tick → counter family."""
ANSWERS: Final = (
    "counted",
    "low_confidence",
    "stale",
    "late",
    "repeated",
    "deadline",
    "timeout",
    "refused",
    "breaker_open",
    "invalid",
    "disabled",
    OTHER,
)
REGIMES: Final[tuple[str, ...]] = get_args(Regime)
KINDS: Final[tuple[str, ...]] = get_args(EntryKind)
CODES: Final[tuple[str, ...]] = (*get_args(ErrorCode), OTHER)

SHORT_S: Final = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 0.1, 1.0)
LATENCY_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORES: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)

SIGNAL = "decision on a signal"
OUTCOME = "outcome"
SHARED = "price step or cascade reading"
PRICES = "price message"
ENTRY = "any journal entry"
DECISION = "any decision"
REFUSAL = "ingest, market or sizing"
WORKER = "worker"
POLICY = "policy agent"

FAMILIES: Final = (
    # -- kelly
    Family("kelly_fraction", "gauge", "ratio", SIGNAL, "Kelly bet on the last sized signal, as a share of the value."),
    Family("kelly_position_size_usd", "gauge", "usd", SIGNAL, "Signed size of the last sized signal after Kelly."),
    Family(
        "clipped_claims_total",
        "counter",
        "claims",
        SIGNAL,
        "Claims that count for another value than was claimed.",
        ("field",),
        (("expected_return", "predicted_volatility"),),
    ),
    Family(
        "freed_slots_total",
        "counter",
        "slots",
        SIGNAL,
        "Idle strategies, and idle pairs of strategy and symbol, that were forgotten: for a new one, or by an order.",
        ("kind",),
        (("strategy", "cell"),),
    ),
    Family("bayesian_win_rate", "gauge", "ratio", SIGNAL, "Mean of the win-rate posterior of the last sized cell."),
    Family(
        "bayesian_edge",
        "gauge",
        "sd",
        SIGNAL,
        "Predicted net return of the last sized signal, in predictive standard deviations.",
    ),
    Family(
        "bayesian_trades_total",
        "counter",
        "outcomes",
        OUTCOME,
        "Outcomes used for learning; a win exceeds the costs.",
        ("outcome",),
        (("win", "loss"),),
    ),
    # -- conformal
    Family(
        "conformal_scale_factor", "gauge", "ratio", SIGNAL, "Multiplier of the last Kelly size by the conformal scale."
    ),
    Family("conformal_samples", "gauge", "scores", SIGNAL, "Scores in the window of the last sized cell."),
    Family(
        "conformal_residuals",
        "histogram",
        "scores",
        OUTCOME,
        "Normalised residual of outcomes: |realised - predicted| / (claimed volatility * EWMA scale).",
        bounds=SCORES,
    ),
    Family(
        "conformal_null_rejections_total",
        "counter",
        "outcomes",
        REFUSAL,
        "Outcomes refused: return missing or not a number.",
    ),
    Family(
        "conformal_nan_rejections_total", "counter", "outcomes", REFUSAL, "Outcomes refused: return is NaN or infinite."
    ),
    # -- sentiment
    Family("sentiment_multiplier", "gauge", "ratio", SIGNAL, "Sentiment multiplier of the last sized signal."),
    Family("risk_score_multiplier", "gauge", "ratio", SIGNAL, "Risk-score multiplier of the last sized signal."),
    # -- regime
    Family(
        "current_regime",
        "gauge",
        "0 or 1",
        SIGNAL,
        "Regime of the last sized signal's symbol: 1 for the confirmed one, 0 for the others.",
        ("regime",),
        (REGIMES,),
    ),
    Family(
        "regime_multiplier",
        "gauge",
        "ratio",
        SIGNAL,
        "Regime multiplier of the last sized signal, by the regime at that time.",
        ("regime",),
        (REGIMES,),
    ),
    Family(
        "regime_transitions_total",
        "counter",
        "changes",
        "regime vote of a signal",
        "Changes of a confirmed regime.",
        ("from_regime", "to_regime"),
        (REGIMES, REGIMES),
    ),
    Family(
        "regime_false_flips_total",
        "counter",
        "candidates",
        "regime vote of a signal",
        "Regime candidates that ended without a confirmation.",
    ),
    Family(
        "regime_confirmation_progress",
        "gauge",
        "ratio",
        "regime vote of a signal",
        "Votes of the last candidate, as a share of those needed to confirm it; 0 for other regimes.",
        ("candidate_regime",),
        (REGIMES,),
    ),
    # -- cascade
    Family("cascade_risk_score", "gauge", "score", SHARED, "Highest latched cascade score of any symbol and side."),
    Family(
        "cascade_risk_components",
        "gauge",
        "score",
        SHARED,
        "Highest value of the component over all symbols and sides; 0.5 at its threshold.",
        ("component",),
        (COMPONENTS,),
    ),
    Family(
        "cascade_threshold_breaches_total",
        "counter",
        "crossings",
        SHARED,
        "Times that a component of a symbol and side rose to its threshold; counted by partition 0 only.",
        ("component",),
        (COMPONENTS,),
    ),
    Family(
        "cascade_recommendations_total",
        "counter",
        "decisions",
        SIGNAL,
        "Decisions on signals, by the cascade level in force.",
        ("recommendation",),
        (tuple(RECOMMENDATIONS),),
    ),
    Family(
        "cascade_level_changes_total",
        "counter",
        "changes",
        SHARED,
        "Changes of a cascade level, by the new level; counted by partition 0 only.",
        ("recommendation",),
        (tuple(RECOMMENDATIONS),),
    ),
    Family("drawdown_multiplier", "gauge", "ratio", SIGNAL, "Drawdown multiplier of the last signal."),
    # -- risk budgets
    Family(
        "risk_budget_violations_total",
        "counter",
        "caps",
        DECISION,
        "Caps that reduced a decision, by level.",
        ("level",),
        (BUDGETS,),
    ),
    Family(
        "risk_budget_utilization_ratio",
        "gauge",
        "ratio",
        DECISION,
        "Highest utilization of any cap in the last decision, by level.",
        ("level",),
        (BUDGETS,),
    ),
    # -- decisions
    Family(
        "position_decisions_total",
        "counter",
        "decisions",
        SIGNAL,
        "Decisions on signals; the first 64 strategies by name, the rest as other.",
        ("strategy_id",),
    ),
    Family("ensemble_strategies", "gauge", "strategies", DECISION, "Live strategies of the last full decision."),
    Family(
        "ensemble_weight_current",
        "gauge",
        "ratio",
        DECISION,
        "Weight of each strategy in the last full decision; the first 64 strategies by name, the rest as other.",
        ("strategy_id",),
    ),
    Family(
        "ensemble_weight_drift_ratio",
        "gauge",
        "ratio",
        DECISION,
        "Distance of strategy weights from their reference, last full decision.",
    ),
    Family("ensemble_weight_total_usd", "gauge", "usd", DECISION, "Gross of the last full decision."),
    Family("ensemble_utilization_ratio", "gauge", "ratio", DECISION, "Gross over value, last full decision."),
    Family(
        "correlation_alerts_total",
        "counter",
        "pairs",
        SHARED,
        "Times that a pair's correlation rose above the alert threshold.",
    ),
    Family(
        "correlation_mean_ratio", "gauge", "ratio", SHARED, "Shrinkage target: mean pairwise correlation, newest bar."
    ),
    Family("correlation_symbols", "gauge", "symbols", SHARED, "Symbols with known correlations."),
    Family(
        "correlation_penalty_ratio",
        "gauge",
        "ratio",
        DECISION,
        "Largest share that stage 10 removed from a symbol, last full decision.",
    ),
    Family(
        "diversification_ratio",
        "gauge",
        "ratio",
        DECISION,
        "Sum of stand-alone risks over portfolio risk, last full decision.",
    ),
    Family("final_position_size_usd", "gauge", "usd", SIGNAL, "Signed final size of the last signal's cell."),
    Family(
        "position_reductions_total",
        "counter",
        "cells",
        DECISION,
        "Cells that a stage reduced or a gate set to zero.",
        ("reason",),
        ((*STAGES, *GATES.values(), OTHER),),
    ),
    Family(
        "decisions_total",
        "counter",
        "decisions",
        DECISION,
        "Decisions, by trigger.",
        ("trigger",),
        (RANKS,),
    ),
    Family("decision_seconds", "histogram", "seconds", DECISION, "Time to fold and decide one entry.", bounds=SHORT_S),
    Family(
        "signal_to_allocation_seconds",
        "histogram",
        "seconds",
        "acknowledged chunk",
        "Time from a signal's journal time to the acknowledgement of its allocation, by the worker's clock.",
        bounds=LATENCY_S,
    ),
    Family("allocation_sequence", "gauge", "sequence", DECISION, "Sequence of the last allocation, in its portfolio."),
    Family("last_decision_timestamp_seconds", "gauge", "seconds", DECISION, "Journal time of the last decision."),
    # -- policy
    Family(
        "rl_requests_total",
        "counter",
        "questions",
        POLICY,
        "Questions to the policy, by result.",
        ("status",),
        (("advice", *REASONS),),
    ),
    Family(
        "rl_answers_total",
        "counter",
        "answers",
        ENTRY,
        "Answers and deadlines in the journal, by effect; stale, late and repeated ones have none.",
        ("status",),
        (ANSWERS,),
    ),
    Family("rl_scored_total", "counter", "outcomes", OUTCOME, "Outcomes on which policy and rules were compared."),
    Family(
        "rl_advantage",
        "gauge",
        "ratio",
        DECISION,
        "Mean net return per decision of the policy minus the rules, as a share of the value.",
    ),
    Family("rl_gate_state", "gauge", "state", DECISION, "Gate of the last portfolio: 0 collecting, 1 open, 2 closed."),
    Family("rl_blend_weight", "gauge", "ratio", DECISION, "Largest weight of an answer in force; 0: no nudge acts."),
    Family("rl_repeated_requests_total", "counter", "questions", POLICY, "Redelivered questions that were dropped."),
    Family("rl_latency_seconds", "histogram", "seconds", POLICY, "Duration of a call to the policy.", bounds=LATENCY_S),
    Family("rl_in_flight", "gauge", "questions", POLICY, "Questions in flight."),
    Family("rl_waiting", "gauge", "questions", POLICY, "Questions waiting for a free slot."),
    Family("circuit_breaker_state", "gauge", "state", POLICY, "Breaker of this worker: 0 closed, 1 half-open, 2 open."),
    Family("circuit_breaker_timeout_seconds", "gauge", "seconds", POLICY, "Current or last open time of the breaker."),
    Family("circuit_breaker_failures_total", "counter", "questions", POLICY, "Calls that the endpoint failed."),
    Family(
        "circuit_breaker_fallbacks_total",
        "counter",
        "questions",
        POLICY,
        "Questions without an answer, where the rules' size stays in force.",
    ),
    Family(
        "circuit_breaker_success_ratio",
        "gauge",
        "ratio",
        POLICY,
        "Share of calls that the endpoint answered.",
    ),
    # -- journal
    Family(
        "journal_entries_total", "counter", "entries", ENTRY, "Journal entries folded, by kind.", ("kind",), (KINDS,)
    ),
    Family("journal_lag", "gauge", "entries", WORKER, "Entries not yet folded.", ("partition",)),
    Family("duplicates_dropped_total", "counter", "inputs", ENTRY, "Duplicate inputs that were dropped."),
    Family(
        "older_inputs_dropped_total",
        "counter",
        "inputs",
        ENTRY,
        "Inputs dropped because they are older than the current ones.",
        ("kind",),
        (("signal", "positions"),),
    ),
    Family(
        "refused_symbols_total",
        "counter",
        "steps",
        SHARED,
        "Prices refused because the symbol has another source partition.",
    ),
    Family("suspect_prices_total", "counter", "steps", SHARED, "Step prices too far from the symbol's last price."),
    Family(
        "clipped_prices_total", "counter", "prices", SHARED, "Opens, highs and lows of steps that were out of reach."
    ),
    Family(
        "late_ticks_total", "counter", "ticks", PRICES, "Ticks older than the symbol's last one, or too old to use."
    ),
    Family("suspect_ticks_total", "counter", "ticks", PRICES, "Ticks too far from the symbol's last price."),
    Family("clipped_ticks_total", "counter", "ticks", PRICES, "Ticks with a high or low that was out of reach."),
    Family("refused_ticks_total", "counter", "ticks", PRICES, "Invalid ticks in messages with other, valid ticks."),
    Family(
        "dead_letters_total",
        "counter",
        "records",
        REFUSAL,
        "Records sent to a dead-letter topic, by source topic and error code.",
        ("topic", "code"),
        ((*INPUTS, OTHER), CODES),
    ),
    Family("alerts_total", "counter", "alerts", ENTRY, "Alerts raised, by kind.", ("kind",), (ALERTS,)),
    # -- processors
    Family(
        "records_folded_total",
        "counter",
        "records",
        "acknowledged chunk",
        "Source records folded whose outputs are acknowledged.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "records_published_total",
        "counter",
        "records",
        "acknowledged chunk",
        "Records published and acknowledged.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "table_recovery_seconds",
        "gauge",
        "seconds",
        "recovery",
        "Duration of the last recovery.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "recoveries_total",
        "counter",
        "recoveries",
        "recovery",
        "Recoveries from the local store, the changelogs, or Genesis.",
        ("processor", "way"),
        (PROCESSORS, RECOVERY_SOURCES),
    ),
    Family(
        "checkpoint_seconds",
        "histogram",
        "seconds",
        "checkpoint",
        "Time from a checkpoint's first write to the acknowledgement of its progress.",
        ("processor",),
        (PROCESSORS,),
        LONG_S,
    ),
    Family(
        "checkpoint_records_total",
        "counter",
        "records",
        "checkpoint",
        "Records written to tables.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "checkpoint_bytes_total",
        "counter",
        "bytes",
        "checkpoint",
        "Bytes written to tables.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "checkpoint_offset",
        "gauge",
        "offset",
        "recovery or checkpoint",
        "Source offset of the last acknowledged checkpoint.",
        ("processor", "partition"),
    ),
    # -- worker
    Family(
        "config_reloads_total",
        "counter",
        "reloads",
        WORKER,
        "Changes of the settings file, by result.",
        ("status",),
        (RELOADS,),
    ),
    Family(
        "config_callbacks", "gauge", "callbacks", WORKER, "Parts of the worker that are notified of changed settings."
    ),
    Family(
        "config_restart_required",
        "gauge",
        "keys",
        WORKER,
        "Settings in the file that need a restart of this worker to take effect.",
    ),
    Family("ready", "gauge", "0 or 1", WORKER, "Whether all assigned partitions are recovered and caught up."),
    Family(
        "stalled_seconds",
        "gauge",
        "seconds",
        WORKER,
        "Longest time that any part of the worker has made no progress with work pending.",
    ),
    Family(
        "build_info",
        "gauge",
        "1",
        WORKER,
        "Always 1; the labels give the running versions.",
        ("version", "decision_version", "python_version"),
    ),
)

NAMED: Final = {family.name: family for family in FAMILIES}


def markdown() -> str:
    """Return the table of `docs/metrics.md`."""
    rows = ["| family | type | labels | unit | recorded at | meaning |", "|---|---|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        cells = (f"`{family.full_name}`", family.kind, labels, family.unit, family.where, family.help)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"

"""Every metric family, as data: `metrics.py` beside it records them, `docs/metrics.md` is this table for people."""

from itertools import product
from typing import Final, Literal, NamedTuple, get_args

from engines.models.cascade import Components
from engines.pipeline.decide import RANKS
from schemas.rl import REASONS
from schemas.vocabulary import RECOMMENDATIONS, EntryKind, ErrorCode, Regime

PREFIX: Final = "himari_l3_"
OTHER: Final = "other"
"""Stands for every label value that is not of its closed set, or came after the allow-list was full."""

Kind = Literal["counter", "gauge", "histogram"]
Combination = tuple[str, ...]


class Family(NamedTuple):
    """One metric family."""

    name: str
    """Without the prefix."""
    kind: Kind
    unit: str
    where: str
    """The path that records it."""
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    """The closed set of each label; a label without one has an open set. All closed: counters show zeros at once."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, the last one (infinity) left out."""

    @property
    def full_name(self) -> str:
        """The name on the page."""
        return PREFIX + self.name

    @property
    def combinations(self) -> list[Combination]:
        """Every combination of label values; none where a set is open."""
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
"""Why a cell has no size at all → its label."""
BUDGETS: Final = ("cell", "symbol", "strategy", "portfolio")
INPUTS: Final = ("signals", "cascade-indicators", "prices", "outcomes", "positions", "control")
PROCESSORS: Final = ("sizing", "market")
WAYS: Final = ("local", "changelog", "genesis")
RELOADS: Final = ("applied", "rejected", "unchanged", "conflict", OTHER)
ALERTS: Final = (
    "correlation",
    "drift",
    "cascade",
    "risk_budget",
    "breaker",
    "stale_price",
    "suspect_price",
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
"""What became of ticks → its family."""
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

SIGNAL = "a signal's decision"
OUTCOME = "an outcome"
SHARED = "a step or a reading"
PRICES = "a price message"
ENTRY = "any journal entry"
DECISION = "any decision"
REFUSAL = "ingest, market or sizing"
WORKER = "the worker"
POLICY = "the side agent"

FAMILIES: Final = (
    # -- kelly
    Family("kelly_fraction", "gauge", "ratio", SIGNAL, "What Kelly bets on the last sized signal, of the value."),
    Family("kelly_position_size_usd", "gauge", "usd", SIGNAL, "Signed size of the last sized signal after Kelly."),
    Family("bayesian_win_rate", "gauge", "ratio", SIGNAL, "Mean of the win-rate posterior of the last sized cell."),
    Family("bayesian_edge", "gauge", "sd", SIGNAL, "Predicted net return of the last sized signal, in predictive sd."),
    Family(
        "bayesian_trades_total",
        "counter",
        "outcomes",
        OUTCOME,
        "Outcomes learnt from; a win is above the costs.",
        ("outcome",),
        (("win", "loss"),),
    ),
    # -- conformal
    Family("conformal_scale_factor", "gauge", "ratio", SIGNAL, "What the interval leaves of the last Kelly size."),
    Family("conformal_samples", "gauge", "scores", SIGNAL, "Scores in the window of the last sized cell."),
    Family(
        "conformal_residuals",
        "histogram",
        "scores",
        OUTCOME,
        "Misses of outcomes, in claimed volatilities and usual misses.",
        bounds=SCORES,
    ),
    Family("conformal_null_rejections_total", "counter", "outcomes", REFUSAL, "Outcomes refused: no number as return."),
    Family("conformal_nan_rejections_total", "counter", "outcomes", REFUSAL, "Outcomes refused: NaN or infinity."),
    # -- sentiment
    Family("sentiment_multiplier", "gauge", "ratio", SIGNAL, "Tilt of the last sized signal by the mood."),
    Family("risk_score_multiplier", "gauge", "ratio", SIGNAL, "What the risk score leaves of the last sized signal."),
    # -- regime
    Family(
        "current_regime",
        "gauge",
        "0 or 1",
        SIGNAL,
        "The confirmed regime of the last sized signal's symbol is 1, the others 0.",
        ("regime",),
        (REGIMES,),
    ),
    Family(
        "regime_multiplier",
        "gauge",
        "ratio",
        SIGNAL,
        "Multiplier of the last sized signal, at the regime it was sized in.",
        ("regime",),
        (REGIMES,),
    ),
    Family(
        "regime_transitions_total",
        "counter",
        "changes",
        "a signal's regime vote",
        "Changes of a confirmed regime.",
        ("from_regime", "to_regime"),
        (REGIMES, REGIMES),
    ),
    Family(
        "regime_false_flips_total", "counter", "candidates", "a signal's regime vote", "Candidates that were given up."
    ),
    Family(
        "regime_confirmation_progress",
        "gauge",
        "ratio",
        "a signal's regime vote",
        "Votes of the last candidate, of those that confirm it; 0 for the others.",
        ("candidate_regime",),
        (REGIMES,),
    ),
    # -- cascade
    Family("cascade_risk_score", "gauge", "score", SHARED, "Highest latched score of any symbol and side."),
    Family(
        "cascade_risk_components",
        "gauge",
        "score",
        SHARED,
        "Highest component of any symbol and side; .5 is its threshold.",
        ("component",),
        (COMPONENTS,),
    ),
    Family(
        "cascade_threshold_breaches_total",
        "counter",
        "crossings",
        SHARED,
        "Components of a symbol's side that rose to their threshold; partition 0 counts for all.",
        ("component",),
        (COMPONENTS,),
    ),
    Family(
        "cascade_recommendations_total",
        "counter",
        "decisions",
        SIGNAL,
        "Levels in force for signals that were sized afresh.",
        ("recommendation",),
        (tuple(RECOMMENDATIONS),),
    ),
    Family(
        "cascade_level_changes_total",
        "counter",
        "changes",
        SHARED,
        "Levels newly in force; partition 0 counts for all.",
        ("recommendation",),
        (tuple(RECOMMENDATIONS),),
    ),
    Family("drawdown_multiplier", "gauge", "ratio", SIGNAL, "What the portfolio's drawdown leaves of the last signal."),
    # -- risk budgets
    Family(
        "risk_budget_violations_total",
        "counter",
        "caps",
        DECISION,
        "Caps that cut a decision, by level.",
        ("level",),
        (BUDGETS,),
    ),
    Family(
        "risk_budget_utilization_ratio",
        "gauge",
        "ratio",
        DECISION,
        "Fullest budget of the last decision, of its cap.",
        ("level",),
        (BUDGETS,),
    ),
    # -- decisions
    Family(
        "position_decisions_total",
        "counter",
        "decisions",
        SIGNAL,
        "Decisions of signals; the first 64 strategies by name, then other.",
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
    Family("ensemble_weight_drift_ratio", "gauge", "ratio", DECISION, "Drift of the last full decision's weights."),
    Family("ensemble_weight_total_usd", "gauge", "usd", DECISION, "Gross of the last full decision."),
    Family("ensemble_utilization_ratio", "gauge", "ratio", DECISION, "The same, of the portfolio's value."),
    Family("correlation_alerts_total", "counter", "pairs", SHARED, "Pairs of symbols that rose above the threshold."),
    Family("correlation_mean_ratio", "gauge", "ratio", SHARED, "Mean correlation that pairs are drawn to, newest bar."),
    Family("correlation_symbols", "gauge", "symbols", SHARED, "Symbols whose correlations are known."),
    Family(
        "correlation_penalty_ratio", "gauge", "ratio", DECISION, "Largest share stage 10 took of a symbol, last time."
    ),
    Family("diversification_ratio", "gauge", "ratio", DECISION, "Risks one by one over the risk together, last time."),
    Family("final_position_size_usd", "gauge", "usd", SIGNAL, "Signed final size of the last signal's cell."),
    Family(
        "position_reductions_total",
        "counter",
        "cells",
        DECISION,
        "Cells that a stage made smaller or a gate kept at zero.",
        ("reason",),
        ((*STAGES, *GATES.values(), OTHER),),
    ),
    Family(
        "decisions_total",
        "counter",
        "decisions",
        DECISION,
        "Decisions, by what called for them.",
        ("trigger",),
        (RANKS,),
    ),
    Family("decision_seconds", "histogram", "seconds", DECISION, "Fold and decision of one entry.", bounds=SHORT_S),
    Family(
        "signal_to_allocation_seconds",
        "histogram",
        "seconds",
        "an acknowledged chunk",
        "From a signal's journal time to its allocation's acknowledgement, on the worker's clock.",
        bounds=LATENCY_S,
    ),
    Family("allocation_sequence", "gauge", "sequence", DECISION, "Sequence of the last allocation in its portfolio."),
    Family("last_decision_timestamp_seconds", "gauge", "seconds", DECISION, "Journal time of the last decision."),
    # -- policy
    Family(
        "rl_requests_total",
        "counter",
        "questions",
        POLICY,
        "Questions to the policy, by what became of them.",
        ("status",),
        (("advice", *REASONS),),
    ),
    Family(
        "rl_answers_total",
        "counter",
        "answers",
        ENTRY,
        "What the journal's answers and deadlines did to their questions; stale, late and repeated: nothing.",
        ("status",),
        (ANSWERS,),
    ),
    Family("rl_scored_total", "counter", "outcomes", OUTCOME, "Outcomes on which policy and rules were compared."),
    Family("rl_advantage", "gauge", "ratio", DECISION, "Mean net gain of the policy over the rules, a decision, of V."),
    Family("rl_gate_state", "gauge", "state", DECISION, "Of the last portfolio: 0 collecting, 1 open, 2 closed."),
    Family("rl_blend_weight", "gauge", "ratio", DECISION, "Weight of the answers in force; 0: nothing is nudged."),
    Family("rl_repeated_requests_total", "counter", "questions", POLICY, "Questions delivered again, and dropped."),
    Family(
        "rl_latency_seconds", "histogram", "seconds", POLICY, "Time of a question that was asked.", bounds=LATENCY_S
    ),
    Family("rl_in_flight", "gauge", "questions", POLICY, "Questions being asked."),
    Family("rl_waiting", "gauge", "questions", POLICY, "Questions that wait for a free place."),
    Family("circuit_breaker_state", "gauge", "state", POLICY, "Of this worker: 0 closed, 1 half-open, 2 open."),
    Family("circuit_breaker_timeout_seconds", "gauge", "seconds", POLICY, "How long it stays open, or stayed last."),
    Family("circuit_breaker_failures_total", "counter", "questions", POLICY, "Questions that the endpoint failed."),
    Family(
        "circuit_breaker_fallbacks_total",
        "counter",
        "questions",
        POLICY,
        "Questions without an answer: the rules stand.",
    ),
    Family(
        "circuit_breaker_success_ratio",
        "gauge",
        "ratio",
        POLICY,
        "Questions that the endpoint answered, of those asked.",
    ),
    # -- journal
    Family(
        "journal_entries_total", "counter", "entries", ENTRY, "Journal entries folded, by kind.", ("kind",), (KINDS,)
    ),
    Family("journal_lag", "gauge", "entries", WORKER, "Entries not folded yet.", ("partition",)),
    Family("duplicates_dropped_total", "counter", "inputs", ENTRY, "Inputs that were there already."),
    Family(
        "older_inputs_dropped_total",
        "counter",
        "inputs",
        ENTRY,
        "Inputs older than what they would replace.",
        ("kind",),
        (("signal", "positions"),),
    ),
    Family("refused_symbols_total", "counter", "steps", SHARED, "Symbols from a second partition of prices, refused."),
    Family("suspect_prices_total", "counter", "steps", SHARED, "Prices of steps that were too far from the last one."),
    Family(
        "clipped_prices_total", "counter", "prices", SHARED, "Opens, highs and lows of steps that were too far off."
    ),
    Family(
        "late_ticks_total", "counter", "ticks", PRICES, "Ticks older than their symbol's last, or too old to count."
    ),
    Family("suspect_ticks_total", "counter", "ticks", PRICES, "Ticks too far from their symbol's last price."),
    Family("clipped_ticks_total", "counter", "ticks", PRICES, "Ticks with a high or low that was too far off."),
    Family("refused_ticks_total", "counter", "ticks", PRICES, "Bad ticks of messages of many; the others count."),
    Family(
        "dead_letters_total",
        "counter",
        "records",
        REFUSAL,
        "Records refused to a dead-letter topic, by source topic and rule.",
        ("topic", "code"),
        ((*INPUTS, OTHER), CODES),
    ),
    Family("alerts_total", "counter", "alerts", ENTRY, "Alerts raised, by kind.", ("kind",), (ALERTS,)),
    # -- processors
    Family(
        "records_folded_total",
        "counter",
        "records",
        "an acknowledged chunk",
        "Source records folded, their outputs acknowledged.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "records_published_total",
        "counter",
        "records",
        "an acknowledged chunk",
        "Records published and acknowledged.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "table_recovery_seconds",
        "gauge",
        "seconds",
        "a recovery",
        "How long the last recovery took.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "recoveries_total",
        "counter",
        "recoveries",
        "a recovery",
        "Recoveries: from the local store, the changelogs, or Genesis.",
        ("processor", "way"),
        (PROCESSORS, WAYS),
    ),
    Family(
        "checkpoint_seconds",
        "histogram",
        "seconds",
        "a checkpoint",
        "From a checkpoint's first write to its acknowledged progress.",
        ("processor",),
        (PROCESSORS,),
        LONG_S,
    ),
    Family(
        "checkpoint_records_total",
        "counter",
        "records",
        "a checkpoint",
        "Records written to tables.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "checkpoint_bytes_total",
        "counter",
        "bytes",
        "a checkpoint",
        "Bytes written to tables.",
        ("processor",),
        (PROCESSORS,),
    ),
    Family(
        "checkpoint_offset",
        "gauge",
        "offset",
        "a recovery or a checkpoint",
        "Source offset of the last acknowledged checkpoint.",
        ("processor", "partition"),
    ),
    # -- worker
    Family(
        "config_reloads_total",
        "counter",
        "reloads",
        WORKER,
        "Changes of the settings file seen, by what came of them.",
        ("status",),
        (RELOADS,),
    ),
    Family("config_callbacks", "gauge", "callbacks", WORKER, "Parts of the worker notified of changed settings."),
    Family(
        "config_restart_required",
        "gauge",
        "keys",
        WORKER,
        "Settings of the file that this worker cannot take while it runs.",
    ),
    Family("ready", "gauge", "0 or 1", WORKER, "Whether all that is assigned is recovered and caught up."),
    Family(
        "stalled_seconds",
        "gauge",
        "seconds",
        WORKER,
        "Longest time that some part of the worker has stood still with work before it.",
    ),
    Family(
        "build_info",
        "gauge",
        "1",
        WORKER,
        "Always 1; its labels say what runs.",
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

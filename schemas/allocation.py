"""The allocation that Layer 3 publishes: target positions, and how each number was derived."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Message
from schemas.vocabulary import Recommendation

Money = float


class Target(Message):
    """The target position in one symbol."""

    notional_usd: Money | None = Field(
        description="signed, USD to the nearest cent, quantity times price; null: unmanaged and the price is unknown"
    )
    weight: float | None = Field(description="signed share of the portfolio's value, truncated to 1e-9; null as above")
    quantity: float = Field(description="signed, coins or contracts, truncated toward zero to the lot")


class WaterfallStep(Message):
    """One stage of the trigger's cell. Each stage starts from the size the previous one left, so steps sum exactly."""

    stage: str = Field(description="name of the stage")
    before_cents: int = Field(description="signed size before the stage, cents")
    after_cents: int = Field(description="signed size after the stage, cents")
    reason: str = Field(description="reason for the change, or empty")


class PortfolioStep(Message):
    """Net and gross size of all cells of the portfolio after one stage."""

    stage: str = Field(description="name of the stage")
    net_cents: int = Field(description="sum of signed sizes after the stage, cents")
    gross_cents: int = Field(description="sum of sizes after the stage, cents")


class Totals(Message):
    """Totals of the portfolio."""

    gross_usd: Money = Field(description="sum of sizes, USD")
    net_usd: Money = Field(description="sum of signed sizes, USD")
    utilization_ratio: float = Field(description="gross divided by the portfolio's value")


class Cell(Message):
    """The target of one strategy in one symbol."""

    strategy_id: str
    symbol: str
    cents: int = Field(description="signed size, cents")


class DriftShown(Message):
    """Distance of a portfolio's strategy weights from their slow reference."""

    ratio: float = Field(ge=0, le=1, description="total variation: half the sum of absolute differences")
    alert: bool = Field(description="whether the ratio has reached drift_alert_threshold")


class Diversified(Message):
    """Diversification of the held positions."""

    ratio: float = Field(description="DR: sum of stand-alone risks over portfolio risk; 1 for one symbol")
    score: float = Field(description="DR squared over the number of symbols held; 1: uncorrelated and of equal risk")


class Answered(Message):
    """One question to the policy, and its status."""

    strategy_id: str
    symbol: str
    status: str = Field(
        description="open, counted, low_confidence, deadline, or the reason for no answer: timeout, refused, open, …"
    )
    nudge: float = Field(description="requested relative change as received; clipped to ±max_nudge when applied")
    confidence: float = Field(ge=0, le=1, description="weight of the nudge")
    model_version: str = Field(description="version that the policy reports for itself")


class Compared(Message):
    """Policy against rules on the same outcomes, net of costs; means per window, as shares of portfolio value."""

    status: Literal["collecting", "open", "closed"] = Field(
        description="open: evidence shows that the policy earns more"
    )
    decisions: int = Field(ge=0, description="outcomes scored, including those of a window not tested yet")
    windows: int = Field(ge=0, description="windows tested; each gives one sum over its outcomes")
    base_mean: float = Field(description="mean return of the rules' sizes")
    policy_mean: float = Field(description="mean return that the policy's sizes, with the full nudge, would have had")
    advantage: float = Field(description="policy_mean minus base_mean")
    lower: float = Field(description="lower end of the advantage's anytime-valid 95 % confidence interval")
    upper: float = Field(description="upper end of that interval")


class PolicyShown(Message):
    """The policy's mode, answers and measured performance."""

    mode: Literal["off", "shadow", "live"] = Field(description="live: it may nudge while its gate is open")
    gate: Compared
    cells: list[Answered] = Field(description="questions about forecasts that are still in force")


class TriggeredBy(Message):
    """What triggered the decision."""

    kind: Literal[
        "signal", "expiry", "resume", "price", "control", "value", "settings", "cascade", "cap", "advice", "deadline"
    ]
    id: str = Field(description="signal id, cell, control id, symbol or revised decision, depending on kind")


class JournalPosition(Message):
    """Position in the journal of the entry that led to the decision."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Reason(Message):
    """Why a symbol could not be sized: it keeps its position, or is not opened."""

    symbol: str
    code: Literal["no_price", "stale_price", "price_leap", "equity_leap", "below_lot"]
    text: str


class Allocation(Message):
    """One sizing decision for one portfolio: a pure function of the journal up to `journal`.

    Reader rule: apply sequence = last + 1; drop a sequence at or below last with equal bytes; halt on a fork (a
    sequence at or below last with different bytes, or a wrong previous_hash); fetch again on a gap (above last + 1).
    """

    decision_id: str = Field(max_length=128, description="{journal_id}-{partition}-{offset}-{portfolio_id}")
    portfolio_id: str = Field(description="portfolio that the targets belong to")
    sequence: int = Field(ge=1, description="gapless per portfolio, from 1")
    previous_hash: str = Field(description="sha256 of the portfolio's previous allocation's bytes; empty at sequence 1")
    final: bool = Field(description="false while a policy answer may still revise it")
    revises: str | None = Field(description="decision that this one revises after a policy answer or its deadline")
    rl: PolicyShown | None = Field(description="the policy; null: it is not asked")
    trigger: TriggeredBy
    timestamp_ns: int = Field(description="journal time of the decision, ns since 1970")
    valid_until_ns: int | None = Field(
        description="expiry of the earliest forecast behind a held target, ns; null: none"
    )
    basis: Literal["positions", "targets"] = Field(description="source of the holdings: reported positions or targets")
    targets: dict[str, Target] = Field(description="by symbol; the target of an absent symbol is zero")
    unmanaged: list[str] = Field(
        description="symbols in `targets` that are reported as held but never had a target: shown as reported, "
        "excluded from every total, not to be traded"
    )
    reasons: list[Reason] = Field(description="symbols that could not be sized, and why")
    allocations: dict[str, Money] = Field(description="signed notional by symbol, USD")
    cells: list[Cell] = Field(description="every non-zero cell, sorted by strategy and symbol")
    strategy_weights: dict[str, float] = Field(description="weights of the live strategies; empty: decided by ratio")
    drift: DriftShown = Field(description="distance of the portfolio's strategy weights from their slow reference")
    drifted_strategies: list[str] = Field(description="strategies whose own drift has reached the threshold")
    max_drift_pct: float = Field(description="largest distance of one strategy's weight from its reference, a ratio")
    diversification: Diversified | None = Field(description="null: nothing is held, or a volatility is not yet known")
    correlation_penalties: dict[str, float] = Field(description="share of each symbol that stage 10 removed")
    totals: Totals
    total_allocated_usd: Money = Field(description="gross, USD")
    portfolio_value: Money = Field(description="equity V, USD")
    utilization_pct: float = Field(description="gross divided by value, a ratio")
    bound: list[str] = Field(description="binding caps, as level:name")
    kept: list[str] = Field(description="symbols whose change was too small to trade")
    waterfall: list[WaterfallStep] = Field(
        description="the trigger's cell after each stage; empty if the trigger has no cell"
    )
    portfolio_waterfall: list[PortfolioStep] = Field(description="all cells after each stage")
    journal: JournalPosition
    inputs_hash: str = Field(description="hash chain of all journal values up to this one, sha256 hex")
    settings_hash: str = Field(description="sha256 hex of the decision settings in force")
    decision_version: int = Field(ge=1, description="raised when the same journal gives different bytes")

    strategy_id: str | None = Field(None, description="strategy of the trigger's cell")
    symbol: str | None = Field(None, description="symbol of the trigger's cell")
    position_size_usd: Money | None = Field(None, description="final signed size of the trigger's cell, USD")
    kelly_position_usd: Money | None = Field(None, description="after Bayesian Kelly, USD")
    conformal_adjusted_usd: Money | None = Field(None, description="after the conformal scale, USD")
    sentiment_adjusted_usd: Money | None = Field(None, description="after risk score and sentiment, USD")
    regime_adjusted_usd: Money | None = Field(None, description="after the regime, USD")
    cascade_adjusted_usd: Money | None = Field(None, description="after the cascade cut, USD")
    cascade_risk_score: float | None = Field(None, ge=0, le=1, description="latched score of the cell's side")
    cascade_recommendation: Recommendation | None = Field(
        None, description="level in force, of the symbol or the market"
    )
    current_regime: str | None = Field(None, description="confirmed regime of the symbol in this portfolio")
    diagnostics: dict[str, Any] | None = Field(None, description="inputs and results of each engine")

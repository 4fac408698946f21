"""What Layer 3 publishes: how much to hold, and how that number came about."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Message
from schemas.vocabulary import Recommendation

Money = float


class Target(Message):
    """What to hold of one symbol."""

    notional_usd: Money | None = Field(
        description="signed, USD with two decimals, truncated toward zero; null: unmanaged, and its price is not known"
    )
    weight: float | None = Field(description="signed share of the portfolio's value, truncated to 1e-9; null as above")
    quantity: float = Field(description="signed, coins, truncated toward zero to the lot")


class WaterfallStep(Message):
    """One stage of the trigger's cell; before of a stage is after of the one above, so the steps sum exactly."""

    stage: str = Field(description="name of the stage")
    before_cents: int = Field(description="signed size before the stage, cents")
    after_cents: int = Field(description="signed size after the stage, cents")
    reason: str = Field(description="why the stage did what it did, or empty")


class PortfolioStep(Message):
    """What one stage left of all cells of the portfolio."""

    stage: str = Field(description="name of the stage")
    net_cents: int = Field(description="sum of signed sizes after the stage, cents")
    gross_cents: int = Field(description="sum of sizes after the stage, cents")


class Totals(Message):
    """The portfolio as a whole."""

    gross_usd: Money = Field(description="sum of sizes, USD")
    net_usd: Money = Field(description="sum of signed sizes, USD")
    utilization_ratio: float = Field(description="gross over the portfolio's value")


class Cell(Message):
    """What one strategy is to hold of one symbol."""

    strategy_id: str
    symbol: str
    cents: int = Field(description="signed size, cents")


class DriftShown(Message):
    """How far a portfolio's strategy weights are from where they were in the long run."""

    ratio: float = Field(ge=0, le=1, description="total variation, half the sum of distances")
    alert: bool = Field(description="whether that has reached drift_alert_threshold")


class Diversified(Message):
    """What holding several symbols takes away from the risk of holding them one by one."""

    ratio: float = Field(description="DR: risks one by one over the risk together; 1 for one symbol")
    score: float = Field(description="DR squared over the number of symbols held; 1: uncorrelated and of equal risk")


class Answered(Message):
    """One question to the policy, and what became of it."""

    strategy_id: str
    symbol: str
    status: str = Field(
        description="open, counted, low_confidence, deadline, or why there is no answer: timeout, refused, open, …"
    )
    nudge: float = Field(description="relative change that it asks for, as it came; within ±max_nudge it may count")
    confidence: float = Field(ge=0, le=1, description="weight of the nudge")
    model_version: str = Field(description="what the policy calls itself")


class Compared(Message):
    """Policy against rules on the same outcomes, net of costs; means per decision, as shares of the value."""

    status: Literal["collecting", "open", "closed"] = Field(description="open: there is evidence that it earns more")
    decisions: int = Field(ge=0, description="outcomes scored")
    base_mean: float = Field(description="what the rules' sizes earned")
    policy_mean: float = Field(description="what the policy's sizes, with the whole nudge, would have earned")
    advantage: float = Field(description="policy_mean less base_mean")
    lower: float = Field(description="lower end of the advantage's 95 % interval, valid at every moment")
    upper: float = Field(description="upper end")


class PolicyShown(Message):
    """How far the policy may act, what it answered, and how it does."""

    mode: Literal["off", "shadow", "live"] = Field(description="live: it may nudge where its gate is open")
    gate: Compared
    cells: list[Answered] = Field(description="questions about forecasts that still stand")


class TriggeredBy(Message):
    """What called for the decision."""

    kind: Literal[
        "signal", "expiry", "resume", "price", "control", "value", "settings", "cascade", "cap", "advice", "deadline"
    ]
    id: str = Field(description="signal id, cell, control id, symbol or the decision that is revised, by kind")


class JournalPosition(Message):
    """Where in the journal the decision stands."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Reason(Message):
    """Why a symbol could not be sized: it is held as it was, or not opened."""

    symbol: str
    code: Literal["no_price", "stale_price", "below_lot"]
    text: str


class Allocation(Message):
    """One sizing decision of one portfolio: a pure function of the journal up to `journal`.

    Readers: sequence = last + 1 is taken; at or below last with equal bytes is dropped; at or below last with other
    bytes, or a wrong previous_hash, is a fork: halt; above last + 1 is a gap: fetch again.
    """

    decision_id: str = Field(max_length=128, description="{journal_id}-{partition}-{offset}-{portfolio_id}")
    portfolio_id: str = Field(description="whose targets these are")
    sequence: int = Field(ge=1, description="gapless per portfolio, from 1")
    previous_hash: str = Field(description="sha256 of the portfolio's previous allocation's bytes; empty at sequence 1")
    final: bool = Field(description="false while a policy's answer may still revise it")
    revises: str | None = Field(description="the decision that a policy's answer, or its deadline, revises")
    rl: PolicyShown | None = Field(description="the policy; null: it is not asked at all")
    trigger: TriggeredBy
    timestamp_ns: int = Field(description="journal time of the decision, ns since 1970")
    valid_until_ns: int | None = Field(
        description="when the first forecast behind a held target expires, ns; null: none"
    )
    basis: Literal["positions", "targets"] = Field(description="what was held was known from positions or from targets")
    targets: dict[str, Target] = Field(description="by symbol; a symbol that is not named is not held")
    unmanaged: list[str] = Field(
        description="symbols in `targets` that are reported as held but for which no target was ever decided: shown as "
        "reported, in no total, not to be traded"
    )
    reasons: list[Reason] = Field(description="symbols that could not be sized for want of something, and of what")
    allocations: dict[str, Money] = Field(description="signed notional by symbol, USD")
    cells: list[Cell] = Field(description="every cell that is not 0, by strategy and symbol")
    strategy_weights: dict[str, float] = Field(description="weights of the live strategies; empty: decided by ratio")
    drift: DriftShown = Field(description="distance of the portfolio's strategy weights from their slow reference")
    drifted_strategies: list[str] = Field(description="strategies whose own weight has drifted to the threshold")
    max_drift_pct: float = Field(description="largest distance of one strategy's weight from its reference, a ratio")
    diversification: Diversified | None = Field(description="null: nothing held, or a volatility is not known yet")
    correlation_penalties: dict[str, float] = Field(description="share of each symbol that stage 10 took")
    totals: Totals
    total_allocated_usd: Money = Field(description="gross, USD")
    portfolio_value: Money = Field(description="equity V, USD")
    utilization_pct: float = Field(description="gross over value, a ratio")
    bound: list[str] = Field(description="caps that bound, as level:name")
    kept: list[str] = Field(description="symbols whose change was too small to trade")
    waterfall: list[WaterfallStep] = Field(
        description="the trigger's cell through the stages; empty where there is none"
    )
    portfolio_waterfall: list[PortfolioStep] = Field(description="all cells through the stages")
    journal: JournalPosition
    inputs_hash: str = Field(description="hash chain of all journal values up to this one, sha256 hex")
    settings_hash: str = Field(description="sha256 hex of the decision settings in force")
    decision_version: int = Field(ge=1, description="raised when a golden byte changes")

    strategy_id: str | None = Field(None, description="strategy of the trigger's cell")
    symbol: str | None = Field(None, description="symbol of the trigger's cell")
    position_size_usd: Money | None = Field(None, description="final signed size of the trigger's cell, USD")
    kelly_position_usd: Money | None = Field(None, description="after Bayesian Kelly, USD")
    conformal_adjusted_usd: Money | None = Field(None, description="after the conformal scale, USD")
    sentiment_adjusted_usd: Money | None = Field(None, description="after risk score and sentiment, USD")
    regime_adjusted_usd: Money | None = Field(None, description="after the regime, USD")
    cascade_adjusted_usd: Money | None = Field(None, description="after the cascade cut, USD")
    cascade_risk_score: float | None = Field(None, ge=0, le=1, description="latched score of the cell's side")
    cascade_recommendation: Recommendation | None = Field(None, description="level in force, symbol or market")
    current_regime: str | None = Field(None, description="confirmed regime of the symbol in this portfolio")
    diagnostics: dict[str, Any] | None = Field(None, description="what each engine saw and said")

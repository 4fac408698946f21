"""The decision settings: every parameter that can change an allocation, in one tree that the journal puts in force.

The tree has the shape of the YAML's decision sections (`config/layer3_config.yaml`). Every number has its unit in the
name or is a ratio. Each engine receives only the section that it uses.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Self

import orjson
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import Field, model_validator

from engines.numerics.exact import exp
from schemas.base import Frozen
from schemas.units import Id, StrategyId
from schemas.vocabulary import PolicyMode, Regime, StalePrice, Unmanaged

Positive = Annotated[float, Gt(0)]
Ratio = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Gt(0), Lt(1)]
AtLeastOne = Annotated[int, Ge(1)]
AllowedStrategies = Annotated[dict[Id, Annotated[list[StrategyId], MaxLen(200)]], MaxLen(1_000)]


class DrawdownBound(Frozen):
    """Risk-constrained Kelly: P(minimum wealth < alpha) at most beta. Source: Busseti, Ryu and Boyd 2016."""

    alpha: Decay = Field(description="wealth to preserve, as a share of current wealth")
    beta: Decay = Field(description="largest probability of falling below alpha")


class KellyParams(Frozen):
    """How much of a strategy's claims to believe, and how much of full Kelly to bet."""

    kelly_fraction: Annotated[float, Gt(0), Le(0.5)] = Field(0.25, description="share of full Kelly")
    min_win_rate: Ratio = Field(0.0, description="gate on the mean of the win-rate posterior; 0: none")
    min_edge: Annotated[float, Ge(0)] = Field(0.03, description="gate on the edge, in predictive standard deviations")
    prior_strength: Positive = Field(40.0, description="prior weight, in outcomes of a typical claim")
    max_prior_weight: Positive = Field(4.0, description="upper bound of the prior weight, in squared claims")
    prior_calibration: float = Field(0.4, description="prior mean of the calibration slope b: 1 honest, 0 noise")
    prior_shape: Annotated[float, Gt(1)] = Field(5.0, description="prior shape a of the residual variance")
    prior_variance: Positive = Field(1.0, description="prior mean of the residual variance, in claimed variances")
    max_claim: Positive = Field(1.0, description="largest claim that is believed, in claimed volatilities")
    max_usual_claims: Annotated[float, Ge(1)] = Field(3.0, description="the same, in usual claims of the cell")
    first_claim: Annotated[float, Ge(1e-6), Le(100)] = Field(
        0.1, description="usual claim of a cell before its first outcome, in claimed volatilities"
    )
    max_volatility_ratio: Annotated[float, Ge(1)] = Field(
        5.0, description="a claimed volatility counts as at most this many times the symbol's own, and at least 1/this"
    )
    effective_outcomes: Annotated[float, Gt(1)] = Field(1_500.0, description="memory, in outcomes")
    pool_spread: Positive = Field(0.3, description="standard deviation of b between the cells of a strategy")
    pool_correlation: Ratio = Field(0.5, description="how alike what those cells tell is")
    guard_outcomes: Annotated[float, Gt(1)] = Field(150.0, description="short memory that limits b, in outcomes")
    guard_sd: Annotated[float, Ge(0)] = Field(
        0.5, description="standard deviations by which b may be above what the short memory says"
    )
    claim_decay: Decay = Field(0.99, description="decay of the mean square claim")
    winsor_sd: Positive = Field(4.0, description="outcomes are clipped to this many predictive standard deviations")
    win_prior: Positive = Field(10.0, description="wins and losses of the symmetric win-rate prior")
    renewal_decay: Decay = Field(0.99, description="decay of how often signals renew what is held, per signal")
    estimation_shrink: bool = Field(default=True, description="shrink the bet by t²/(1+t²) for the slope's uncertainty")


class ConformalParams(Frozen):
    """How wide prediction intervals must be to cover realised returns."""

    coverage: Annotated[float, Ge(0.5), Le(0.99)] = Field(0.90, description="share of outcomes to cover")
    window_size: Annotated[int, Ge(10), Le(10_000)] = Field(200, description="scores kept")
    min_samples: AtLeastOne = Field(20, description="scores before the scale takes effect")
    adaptation_rate: Decay = Field(0.02, description="step of the adaptive level")
    scale_decay: Decay = Field(0.94, description="decay of the mean square residual that normalises scores")
    winsor_scale: Positive = Field(5.0, description="residuals are clipped to this many scales before they enter it")
    calibration_slack: Annotated[float, Ge(1)] = Field(1.5, description="factor of excess variance treated as noise")
    max_inflation: Annotated[float, Ge(1)] = Field(10.0, description="largest inflation of the variance")


class RegimeMultipliers(Frozen):
    """Size multiplier of each regime for a long; for a short the two trends are swapped."""

    trending_up: Annotated[float, Ge(0)] = 1.2
    trending_down: Annotated[float, Ge(0)] = 0.8
    ranging: Annotated[float, Ge(0)] = 1.0
    high_volatility: Annotated[float, Ge(0)] = 0.6
    crisis: Annotated[float, Ge(0)] = 0.2


class RegimeParams(Frozen):
    """Size multiplier of each regime, and how many votes confirm a change."""

    hysteresis_periods: AtLeastOne = Field(3, description="votes among the last 2h - 1 that confirm a change")
    regime_period_s: AtLeastOne = Field(60, description="length of one voting period in event time, seconds")
    regime_aliases: dict[str, Regime] = Field(default_factory=dict, description="additional labels; case is ignored")
    multipliers: RegimeMultipliers = RegimeMultipliers()


class EnsembleParams(Frozen):
    """Assumed correlation of strategies, and how fast their weights follow their outcomes."""

    prior_correlation: Ratio = Field(0.7, description="correlation of forecasts until it can be measured")
    correlation_samples: AtLeastOne = Field(50, description="samples until the measured correlation is used")
    correlation_decay: Decay = Field(0.99, description="decay of its moments, per sample")
    horizon_outcomes: AtLeastOne = Field(2_000, description="number of outcomes that the learning rate is tuned for")
    fixed_share: Annotated[float, Ge(0), Lt(1)] = Field(
        0.001, description="share of the weights redistributed equally at each outcome"
    )
    weight_floor: Annotated[float, Ge(0), Lt(1)] = Field(0.05, description="smallest weight, at most 1/(4N)")
    reference_outcomes: Annotated[float, Gt(1)] = Field(200.0, description="memory of the drift reference, in outcomes")
    inactive_after_s: Annotated[int, Ge(3_600)] = Field(
        604_800, description="a strategy without a signal for this long loses its weight"
    )


class Costs(Frozen):
    """Trading costs, as ratios of the notional, one way."""

    fee_ratio: Annotated[float, Ge(0), Lt(0.5)] = 0.0005
    slippage_ratio: Annotated[float, Ge(0), Lt(0.5)] = 0.0


class Defaults(Frozen):
    """Assumptions for signals without a claimed return or volatility."""

    expected_sharpe: Annotated[float, Ge(0)] = Field(0.10, description="return over volatility, net of costs")
    validity_horizons: Annotated[float, Ge(1), Le(10)] = Field(1.5, description="validity of a signal, in horizons")
    volatility: Positive = Field(0.02, description="volatility over the horizon if no bars are known")


class ContractParams(Frozen):
    """A contract: what one of them is worth."""

    size: Positive = Field(1.0, description="coins of one contract; USD of one if it is inverse")
    inverse: bool = Field(default=False, description="whether it is settled in coins and worth a fixed amount of USD")


class PositionSizing(Frozen):
    """From one signal's claim to the size of one cell."""

    bayesian_kelly: KellyParams = KellyParams()
    conformal_prediction: ConformalParams = ConformalParams()
    regime_adjustment: RegimeParams = RegimeParams()
    ensemble: EnsembleParams = EnsembleParams()
    risk_score_weight: Ratio = Field(0.5, description="share of the size removed at risk_score 1")
    costs: Costs = Costs()
    defaults: Defaults = Defaults()
    stop_loss_ratio: Annotated[float, Gt(0), Le(1)] | None = Field(None, description="caps a cell at 1/stop_loss of V")
    lots: dict[str, Positive] = Field(
        default_factory=dict,
        description="lot size by symbol, in coins or contracts; 1e-8 coins or 1 contract if absent",
    )
    contracts: dict[str, ContractParams] = Field(
        default_factory=dict, description="contract by symbol whose quantities count contracts; coins if absent"
    )
    drawdown_bound: DrawdownBound | None = Field(None, description="caps kelly_fraction by risk-constrained Kelly")
    band_ratio: Ratio = Field(0.10, description="a change below this share of the target is not traded")


class CascadeThresholds(Frozen):
    """Value at which each component is one half."""

    funding_rate: Positive = Field(0.003, description="ratio per 8 h")
    oi_drop: Positive = Field(0.10, description="ratio in 24 h, coin units")
    volume_spike: Positive = Field(5.0, description="times the mean of the previous 24 h")
    whale_pressure: Positive = Field(0.7, description="index in [0, 1]")
    netflow_zscore: Positive = Field(2.0, description="standard deviations of exchange inflow")
    price: Positive = Field(5.0, description="adverse price move in bar volatilities")
    liquidations: Positive = Field(0.01, description="ratio of open interest in 24 h")


class CascadeWeights(Frozen):
    """Weight of each component in the score."""

    funding_rate: Annotated[float, Ge(0)] = 0.20
    oi_drop: Annotated[float, Ge(0)] = 0.25
    volume_spike: Annotated[float, Ge(0)] = 0.15
    whale_pressure: Annotated[float, Ge(0)] = 0.25
    netflow_zscore: Annotated[float, Ge(0)] = 0.15
    price: Annotated[float, Ge(0)] = 0.25
    liquidations: Annotated[float, Ge(0)] = 0.25

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.price + self.volume_spike <= 0:
            msg = "price and volume_spike must not both be 0: a falling price could not be detected"
            raise ValueError(msg)
        return self


class CascadeLevels(Frozen):
    """Score thresholds of the cuts, and how long a cut lasts."""

    reduce_50: Decay = 0.4
    reduce_75: Decay = 0.6
    exit: Decay = 0.8
    margin: Ratio = Field(0.1, description="a level is left when the score is this far below its threshold")
    half_life_s: Positive = Field(10_800.0, description="half-life of the latched score")
    volume_min_z: Annotated[float, Ge(0)] = Field(
        2.5, description="adverse price move at which half of the volume counts: none .5 below, all .5 above"
    )
    max_reading_age_s: Positive = Field(86_400.0, description="an older reading counts as missing")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.reduce_50 < self.reduce_75 < self.exit:
            msg = f"levels must ascend, were {self.reduce_50}, {self.reduce_75}, {self.exit}"
            raise ValueError(msg)
        return self


class CorrelationParams(Frozen):
    """Memory, shrinkage and alerts of the correlations of bar returns."""

    decay: Annotated[float, Ge(0.94), Le(0.99)] = Field(0.97, description="decay of the moments, per bar")
    shrink: Ratio = Field(0.3, description="weight of the mean correlation in each pair")
    alert_threshold: Annotated[float, Gt(0), Le(1)] = Field(
        0.7, description="absolute correlation that raises an alert"
    )
    clip: Positive = Field(6.0, description="returns are clipped to this many volatilities")
    inactive_after_s: Annotated[int, Ge(3_600)] = Field(
        604_800, description="a symbol without a bar for this long is removed"
    )


class RiskManagement(Frozen):
    """Limits on positions, strategies and the portfolio, as ratios of its value."""

    max_position_pct: Annotated[float, Gt(0), Le(3)] = Field(0.15, description="P: gross of one symbol")
    max_strategy_allocation: Annotated[float, Gt(0), Le(3)] = Field(0.40, description="S: gross of one strategy")
    max_portfolio_allocation: Annotated[float, Gt(0), Le(3)] = Field(0.80, description="G: gross of the portfolio")
    max_leverage: Annotated[float, Ge(1), Le(3)] = Field(1.0, description="gross of the portfolio, in addition to G")
    cap_tolerance: Annotated[float, Ge(0), Le(0.1)] = Field(
        0.01, description="share by which price moves may push a size over its cap; beyond it, cut to as much below it"
    )
    max_drawdown_pct: Annotated[float, Gt(0), Lt(1)] = Field(0.30, description="drawdown at which all targets are 0")
    allow_short: bool = Field(default=True, description="whether a SELL may open a short")
    cascade_thresholds: CascadeThresholds = CascadeThresholds()
    cascade_weights: CascadeWeights = CascadeWeights()
    cascade_levels: CascadeLevels = CascadeLevels()
    correlation: CorrelationParams = CorrelationParams()
    drift_alert_threshold: Annotated[float, Gt(0), Le(1)] = Field(
        0.20, description="distance of strategy weights from their reference that raises an alert"
    )


class SentimentParams(Frozen):
    """How far sentiment may tilt a size."""

    enabled: bool = True
    weight: Annotated[float, Ge(0), Le(0.5)] = 0.15
    upper_threshold: Annotated[float, Gt(0.5), Lt(1)] = Field(
        0.6, description="bullish above this score, bearish below 1 - this"
    )
    half_life_s: Positive = Field(21_600.0, description="half-life of a reading's weight")


class CollarParams(Frozen):
    """How far a price may be from the last one before it needs confirmation by another one."""

    min_reach: Annotated[float, Gt(0), Le(10)] = Field(0.10, description="log distance that is always accepted")
    bar_reach: Positive = Field(0.40, description="log distance after one bar; grows with the square root of the age")
    bar_sd: Annotated[float, Ge(0)] = Field(40.0, description="the same in bar volatilities, used if it is larger")
    max_age_bars: Positive = Field(4.0, description="age of the last price beyond which the distance stops growing")
    max_ratio: Annotated[float, Gt(1)] = Field(4.0, description="a move beyond this factor is never accepted at once")
    agreement: Positive = Field(0.10, description="log distance within which another price confirms a suspect one")
    doubt_ratio: Annotated[float, Gt(1)] = Field(
        2.0, description="a move beyond this factor needs a confirmation at least doubt_s later"
    )
    doubt_s: Annotated[float, Ge(0)] = Field(60.0, description="seconds until a price can confirm such a move")
    probation_s: Annotated[float, Ge(0), Le(604_800)] = Field(
        3_600.0, description="seconds for which the symbol is only reduced after such a move"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if exp(self.min_reach) > self.max_ratio:
            msg = f"min_reach {self.min_reach} is above ln(max_ratio), ln({self.max_ratio})"
            raise ValueError(msg)
        return self


class MarketParams(Frozen):
    """Aggregation of ticks into steps and of steps into bars, and the price collar."""

    step_s: Annotated[int, Ge(1), Le(60)] = 1
    bar_s: Annotated[int, Ge(60), Le(86_400)] = 3_600
    volatility_decay: Decay = Field(0.97, description="decay of the bar variance")
    volatility_clip: Positive = Field(5.0, description="returns are clipped to this many volatilities")
    warmup_bars: AtLeastOne = Field(24, description="closed bars required for a price excursion or a volume ratio")
    collar: CollarParams = CollarParams()

    @model_validator(mode="after")
    def _whole_steps(self) -> Self:
        if self.bar_s % self.step_s:
            msg = f"bar_s must be a multiple of step_s, was {self.bar_s} and {self.step_s}"
            raise ValueError(msg)
        return self


class ValidationCriteria(Frozen):
    """Sizes that are too small or too large, and prices that are too old."""

    min_position_usd: Annotated[float, Ge(0)] = Field(
        10.0, description="smaller positions are not held, smaller changes not traded"
    )
    max_position_usd: Positive = Field(50_000.0, description="largest long side and short side of one symbol")
    max_price_age_s: Positive = Field(120.0, description="an older price is stale")
    outcome_sd: Positive = Field(6.0, description="bar volatilities by which an outcome may differ from the prices")
    outcome_slack: Annotated[float, Ge(0)] = Field(0.01, description="and this much more, as a ratio")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_position_usd > self.max_position_usd:
            msg = f"min_position_usd {self.min_position_usd} is above max_position_usd {self.max_position_usd}"
            raise ValueError(msg)
        return self


class PortfolioParams(Frozen):
    """Initial equity of a portfolio, and the handling of uncertain positions and prices."""

    initial_value_usd: Positive = Field(100_000.0, description="equity until set by control or positions")
    settle_s: Annotated[float, Ge(0), Le(86_400)] = Field(
        30.0, description="time after which a change of a target counts as executed"
    )
    report_due_s: Positive = Field(
        300.0, description="seconds after a change of a target within which a portfolio that reports has to report it"
    )
    stale_price: StalePrice = Field("hold", description="cells without a fresh price: keep the position, or go flat")
    unmanaged: Unmanaged = Field("ignore", description="positions that never had a target: ignore, or flatten them")
    allowed_strategies: AllowedStrategies = Field(
        default_factory=dict, description="strategies by portfolio; a portfolio that is not named takes any"
    )


class GateParams(Frozen):
    """The evidence that opens the policy's gate, and the losses that close it."""

    bound: Annotated[float, Gt(0), Le(1)] = Field(
        0.02, description="the difference of a window is clipped to this share of V"
    )
    alpha: Annotated[float, Gt(0), Le(0.5)] = Field(
        0.05, description="probability that a policy no better than the rules ever opens it"
    )
    max_bet: Annotated[float, Gt(0), Lt(1)] = Field(0.5, description="largest weight of one difference")
    cusum_slack: Annotated[float, Ge(0)] = Field(0.07, description="tolerated loss per window, in standard deviations")
    cusum_threshold: Positive = Field(
        18.0, description="cumulative loss above which the gate closes, in standard deviations"
    )


class RlParams(Frozen):
    """Whether the policy is asked, and how far it may nudge."""

    enabled: bool = Field(default=False, description="whether decisions on signals ask the policy")
    mode: PolicyMode = Field("shadow", description="until changed by control rl_mode; live: it may nudge")
    max_nudge: Annotated[float, Gt(0), Le(0.3)] = Field(0.3, description="largest relative change of a size")
    min_confidence: Ratio = Field(0.5, description="answers with less confidence are ignored")
    deadline_s: Positive = Field(5.0, description="journal time after which answers are ignored, seconds")
    gate: GateParams = GateParams()


class DecisionParams(Frozen):
    """All decision settings, journaled fully resolved with defaults included."""

    position_sizing: PositionSizing = PositionSizing()
    risk_management: RiskManagement = RiskManagement()
    sentiment: SentimentParams = SentimentParams()
    market: MarketParams = MarketParams()
    validation_criteria: ValidationCriteria = ValidationCriteria()
    portfolio: PortfolioParams = PortfolioParams()
    rl: RlParams = RlParams()


def settings_hash(tree: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a settings tree as JSON with sorted keys; it identifies a set of decision settings."""
    return hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()


def tree_hash(params: DecisionParams) -> str:
    """Return the `settings_hash` of decision settings, defaults included."""
    return settings_hash(params.model_dump())

"""The records that sizing keeps: what one journal partition knows, cell by cell and book by book.

A *cell* is one strategy's view on one symbol in one portfolio. Records are NamedTuples of plain values: a state can
be stored as a JSON array and comes back exactly.
"""

from typing import NamedTuple

from engines.models.bars import Bars
from engines.models.calibration import Pool, Posterior
from engines.models.cascade import Latch
from engines.models.collar import Suspect
from engines.models.conformal import Scores
from engines.models.ensemble import Drift, ForecastCorrelation
from engines.models.policy_gate import Gate
from engines.models.regime import RegimeState

__all__ = [
    "Bars",
    "Book",
    "CappedCell",
    "CellPosterior",
    "CellRecord",
    "CellTarget",
    "Claim",
    "Forecast",
    "Gate",
    "Latch",
    "Market",
    "PolicyQuestion",
    "Pool",
    "Posterior",
    "Questions",
    "RegimeState",
    "ScopeOverrides",
    "Scores",
    "Strategies",
    "Suspect",
]


class Forecast(NamedTuple):
    """What a cell's newest BUY or SELL says, with what it left open already resolved."""

    signal_id: str
    timestamp_ns: int
    expires_ns: int
    side: int
    confidence: float
    expected_return: float
    """e: claimed return over the horizon, non-negative."""
    volatility: float
    """s: claimed or estimated volatility over the horizon."""
    costs: float
    """Round-trip costs and funding over the horizon; 0 where the claim is taken as net of them."""
    horizon_s: float
    risk_score: float
    sentiment_score: float | None
    sentiment_confidence: float | None
    sentiment_ns: int
    estimated: str
    """What the signal did not claim: "", "expected_return", "predicted_volatility" or both, joined by a comma."""
    trading_costs: float = 0.0
    """The part of `costs` that is paid for opening and closing."""
    claimed_volatility: float = 0.0
    """The volatility that was claimed where `volatility` is what counts of it; 0: they are the same."""


class Claim(NamedTuple):
    """What a decision claimed of a cell, kept until its outcome comes."""

    offset: int
    """Journal offset of the decision."""
    signal_id: str
    timestamp_ns: int
    side: int
    confidence: float
    expected_return: float
    volatility: float
    mean: float
    """m: predicted return net of costs."""
    costs: float
    variance: float
    """S: predictive variance of the return."""
    scale: float
    """u: conformal scale at the decision."""
    horizon_s: float
    weight: float
    """Signed share of V that was published."""
    advised: tuple[float, float] | None = None
    """(w_base, w_RL): signed shares of V that the caps left, without and with the policy's whole nudge."""
    window_ns: int = 0
    """The window of the policy's gate that scores it, by its opening; 0: none does."""
    gross: float | None = None
    """m₀ = b·conf·e; None: mean + costs."""
    price: float = 0.0
    """The symbol's price at the decision; 0: none was known."""


class CellRecord(NamedTuple):
    """Forecast and open claims of one cell, and the timestamps and ids that keep signals in order."""

    forecast: Forecast | None
    claims: tuple[Claim, ...]
    last_ns: int
    seen: tuple[str, ...]
    """The last 64 signal ids."""
    turns: float = 1.0
    """A: how often the side turned, or lapsed before the next signal; decays with each signal."""
    horizons: float = 1.0
    """Th: over how many horizons forecasts stood; decays alike."""
    side: int = 0
    """Of the last BUY or SELL, 0 before the first."""
    side_ns: int = 0
    """Its timestamp."""
    clipped: int = 0
    """Claims in a row of which less, or more, counts than was claimed."""
    silent: bool = False
    """Whether an alert for a missing outcome was raised; reset by the next outcome."""


class CellPosterior(NamedTuple):
    """Posterior of one cell, and the holding times already learnt from."""

    posterior: Posterior
    spans: tuple[tuple[int, int], ...]
    """(start_ns, end_ns) of the last 256 outcomes."""


class CellTarget(NamedTuple):
    """What was last published for one cell."""

    cents: int
    quantity: float
    """Signed quantity published for the whole symbol, in coins."""
    cut: float
    """c: product of the cascade and drawdown multipliers in force when the cell was last set."""
    cap_factor: float
    """c_ji: what every cut left of the cell's cap."""
    bet: float = 0.0
    """Signed fraction of stage 3 that it came from, cut where the target was cut."""


class Book(NamedTuple):
    """One portfolio: its value, its place in its own sequence, its known positions."""

    value_usd: float
    peak_usd: float
    sequence: int
    last_hash: str
    positions: tuple[tuple[str, float], ...] | None
    """(symbol, signed quantity) sorted by symbol, or None where targets are the basis."""
    positions_ns: int
    watches: tuple[tuple[str, float], ...]
    """(symbol, price below which no cap can break) of what was last published: what spares a check at every step."""
    as_of_sequence: int | None = None
    """The last allocation that the reporter of `positions` had applied, where it says so."""
    changed_sequence: int = 0
    """The last allocation that changed a target quantity; 0: none yet."""
    changed_ns: int = 0
    """Journal time of that allocation."""
    managed: tuple[str, ...] = ()
    """Symbols for which a target other than 0 was ever published, sorted."""
    unmanaged: tuple[str, ...] = ()
    """Symbols last shown as held but not managed, sorted."""
    waiting: tuple[str, ...] = ()
    """Symbols with a live forecast that the last full decision could not size for want of a fresh price, sorted."""
    breached: bool = False
    """Whether a broken cap has been reported and is still broken."""
    known_usd: float = 0.0
    """The equity last reported by `positions` or stated by an order; 0: none yet."""
    suspect_usd: float = 0.0
    """A reported equity too far from it to count before another report agrees; 0: none."""
    suspect_ns: int = 0
    """Time of the report that first had it."""
    leapt_ns: int = 0
    """Journal time when a reported equity above `doubt_ratio` of the one before was believed; 0: never, or stated."""
    reported_sequence: int = 0
    """The newest allocation when the newest report came."""
    silent: bool = False
    """Whether an alert for a missing report was raised; reset by the next report."""


class Market(NamedTuple):
    """One symbol's bars, readings and cascade latches; the market-wide one is under "*" and has no bars."""

    bars: Bars | None
    gauges: tuple[tuple[float, int] | None, ...]
    """(value, timestamp_ns) of each reading: funding per 8 h, open-interest change, volume ratio, whale pressure,
    netflow z-score, liquidations in USD, open interest in USD."""
    long: Latch | None
    short: Latch | None
    source_partition: int
    """Partition of `prices` that the symbol comes from; -1 before the first step."""
    stale: bool = False
    """Whether an alert for the stale price was raised; reset by the next price."""
    suspect: Suspect | None = None
    """A price too far from the last one to count before another agrees with it; over with the next that counts."""
    leapt_ns: int = 0
    """Time of the last accepted price that was beyond `doubt_ratio` of the one before; 0: there was none."""


class Strategies(NamedTuple):
    """The strategies of one portfolio, by name ascending."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    """w, summing to 1."""
    references: tuple[float, ...]
    """Where the weights stood in the long run, summing to 1."""
    heard_ns: tuple[int, ...]
    """When each was last known to speak, to the hour."""
    forecasts: ForecastCorrelation | None
    drift: Drift
    """As of the last move of the weights."""


class ScopeOverrides(NamedTuple):
    """What operators have ordered by scope: trading states that are not ACTIVE, or modes of the policy."""

    scopes: tuple[tuple[str, str], ...]
    """(scope, word), sorted by scope."""


class PolicyQuestion(NamedTuple):
    """One question to the policy, about one cell of one decision, and its answer."""

    strategy_id: str
    symbol: str
    offset: int
    """Journal offset of the decision."""
    signal_id: str
    signal_ns: int
    """With `signal_id`: the forecast that it is about."""
    deadline_ns: int
    base_weight: float
    """w_base: signed share of V that the caps left of the cell."""
    status: str = "open"
    """open, counted, low_confidence, deadline, or the reason why there is no answer."""
    nudge: float = 0.0
    """Relative change of the size that it asks for, as it came."""
    confidence: float = 0.0
    model_version: str = ""


class CappedCell(NamedTuple):
    """One cell as the caps of a decision left it."""

    strategy_id: str
    symbol: str
    cents: int
    cut: float
    cap_factor: float


class Questions(NamedTuple):
    """Questions of one portfolio about its live forecasts, and the book that the answers nudge."""

    book: tuple[CappedCell, ...]
    asked: tuple[PolicyQuestion, ...]
    awaited: bool
    """Whether the last allocation said that it is not final."""

"""The model behind the live table: each cell's latest decision, what is in force, and recent events. Draws nothing."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from engines.pipeline.caps import Limits
from streams.demo.correlation_tracker import CorrelationView
from streams.reports.portfolio import budgets

CellKey = tuple[str, str, str]
"""(portfolio, symbol, strategy): the order of the rows."""

NEWS_MAX = 6
TOGETHER_NS = 1_800_000_000_000
"""Equal events of several symbols within this time are shown as one."""
TRAIL_MAX = 12
"""Calibrations kept per cell."""
CALM = "MONITOR"


class StageStep(NamedTuple):
    """A cell's size before and after one stage."""

    before: int
    """Signed size, cents."""
    after: int
    reason: str

    @property
    def taken(self) -> int:
        """Return the cents the stage removed; negative if it added."""
        return abs(self.before) - abs(self.after)


class DecisionRow(NamedTuple):
    """The latest decision about one cell."""

    side: int
    """+1 long, -1 short, 0 flat."""
    steps: Mapping[str, StageStep]
    """By stage, in pipeline order."""
    final: int
    """Signed size, cents."""
    level: str
    """Cascade recommendation."""
    why: str
    """Reason for a zero size, otherwise the stage that removed most."""
    trail: tuple[float, ...]
    """The cell's last calibrations b, newest last."""
    timestamp_ns: int


class StrategyWeights(NamedTuple):
    """A portfolio's strategy weights and their drift."""

    weights: Mapping[str, float]
    """Weights of the strategies live at the last weighting; they sum to 1."""
    drift: float
    """Total variation from the slow reference, in [0, 1]."""
    alert: bool
    drifted: tuple[str, ...]


class PolicyStatus(NamedTuple):
    """The policy's status at the last allocation."""

    mode: str
    gate: str
    decisions: int
    """Outcomes scored for both policy and rules."""
    advantage: float
    """Mean extra return of the policy's sizes per decision, as a ratio of portfolio value."""
    lower: float
    upper: float
    answers: Mapping[str, int]
    """Questions about live forecasts, by status."""


class News(NamedTuple):
    """An event worth showing."""

    time_ns: int
    subjects: tuple[str, ...]
    text: str
    grave: bool


class Dashboard:
    """Recent allocations and alerts. The caller sets the counters and passes records to `take` and `alert`."""

    def __init__(self, title: str = "", limits: Limits | None = None) -> None:
        """Start empty; budgets are shown only if `limits` are given."""
        self.title = title
        self.limits = limits
        self.rows: dict[CellKey, DecisionRow] = {}
        self.targets: dict[tuple[str, str], float] = {}
        """Net target in force, USD, by (portfolio, symbol)."""
        self.levels: dict[tuple[str, int], str] = {}
        """Cascade level in force by (symbol, side), from alerts."""
        self.regimes: dict[tuple[str, str], str] = {}
        """Confirmed regime by (portfolio, symbol)."""
        self.values: dict[str, tuple[float, float]] = {}
        """(value, gross) in USD by portfolio."""
        self.budgets: dict[str, dict[str, dict[str, float]]] = {}
        """Ratio of held to allowed, by portfolio, level (position, strategy, portfolio) and name."""
        self.strategies: dict[str, StrategyWeights] = {}
        """By portfolio."""
        self.correlations: CorrelationView | None = None
        self.policy: PolicyStatus | None = None
        self.breaker = ""
        """Status of the policy's circuit breaker, from the last alert."""
        self.latest = ""
        """Portfolio of the newest decision."""
        self.news: deque[News] = deque(maxlen=NEWS_MAX)
        self.signals = 0
        self.allocations = 0
        self.dead_letters = 0
        self.lag = 0
        """Signals sent and not yet answered."""
        self.now_ns = 0
        self.done = 0.0
        self.total: float | None = None
        """Total for `done`; None draws no progress bar."""

    def take(self, allocation: Mapping[str, Any]) -> None:
        """Update from an allocation's fields."""
        portfolio, now_ns = allocation["portfolio_id"], allocation["timestamp_ns"]
        self.allocations += 1
        self.now_ns = max(self.now_ns, now_ns)
        self.values[portfolio] = (allocation["portfolio_value"], allocation["total_allocated_usd"])
        shown = {key: value for key, value in self.targets.items() if key[0] != portfolio}
        self.targets = shown | {(portfolio, symbol): usd for symbol, usd in allocation["allocations"].items()}
        self._take_portfolio(portfolio, allocation)
        self.policy = _policy(allocation["rl"])
        symbol, regime = allocation.get("symbol"), allocation.get("current_regime")
        if symbol is None:
            return
        key = (portfolio, symbol, allocation["strategy_id"])
        self.rows[key] = _row(allocation, self.rows.get(key))
        if regime is not None:
            was = self.regimes.get((portfolio, symbol), regime)
            self.regimes[portfolio, symbol] = regime
            if was != regime:
                self._add_news(now_ns, symbol, f"regime {_words(was)} → {_words(regime)}", grave=regime == "crisis")

    def _take_portfolio(self, portfolio: str, allocation: Mapping[str, Any]) -> None:
        """Update budgets, strategy weights and drift of a portfolio."""
        self.latest = portfolio
        known = self.strategies.get(portfolio)
        weights = allocation["strategy_weights"] or (known.weights if known else {})
        drift = allocation["drift"]
        self.strategies[portfolio] = StrategyWeights(
            weights, drift["ratio"], drift["alert"], tuple(allocation["drifted_strategies"])
        )
        full = None if self.limits is None else budgets(allocation, self.limits)
        if full is not None:
            was = self.budgets.get(portfolio, {})
            self.budgets[portfolio] = {
                level: dict.fromkeys(was.get(level, ()), 0.0) | {row["name"]: row["ratio"] or 0.0 for row in rows}
                for level, rows in full.items()
            }

    def alert(self, alert: Mapping[str, Any]) -> None:
        """Update from an alert's fields; a `cascade` alert sets the level in force."""
        time_ns = alert.get("timestamp_ns", self.now_ns)
        subject, grave = alert["subject"], alert["severity"] == "critical"
        if alert["kind"] == "breaker":
            self.breaker = (alert.get("result") or "").partition(",")[0]
            self._add_news(time_ns, subject, f"breaker {_words(self.breaker)}", grave=grave)
            return
        if alert["kind"] != "cascade":
            self._add_news(time_ns, subject, _words(alert["kind"]), grave=grave)
            return
        symbol, _, word = subject.partition(":")
        level = alert.get("result") or CALM
        self.levels[symbol, -1 if word == "short" else 1] = level
        self._add_news(time_ns, symbol, f"cascade, {word} side: {level}", grave=grave)

    def level(self, symbol: str, row: DecisionRow) -> str:
        """Return the cascade level in force for a row: from the latest alert, else from its decision."""
        return self.levels.get((symbol, row.side or 1), row.level)

    def _add_news(self, time_ns: int, subject: str, text: str, *, grave: bool) -> None:
        for index, known in enumerate(self.news):
            if known.text == text and abs(time_ns - known.time_ns) <= TOGETHER_NS:
                if subject not in known.subjects:
                    self.news[index] = known._replace(subjects=tuple(sorted((*known.subjects, subject))))
                return
        self.news.append(News(time_ns, (subject,), text, grave))


def _policy(rl: Mapping[str, Any] | None) -> PolicyStatus | None:
    if rl is None:
        return None
    gate = rl["gate"]
    answers = Counter(cell["status"] for cell in rl["cells"])
    return PolicyStatus(
        rl["mode"], gate["status"], gate["decisions"], gate["advantage"], gate["lower"], gate["upper"], answers
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _row(allocation: Mapping[str, Any], before: DecisionRow | None) -> DecisionRow:
    steps = {
        step["stage"]: StageStep(step["before_cents"], step["after_cents"], step["reason"])
        for step in allocation["waterfall"]
    }
    diagnostics = allocation.get("diagnostics") or {}
    final = round(100.0 * (allocation.get("position_size_usd") or 0.0))
    largest = max((step.after for step in steps.values()), key=abs, default=0)
    trail = () if before is None else before.trail
    kelly = diagnostics.get("kelly")
    return DecisionRow(
        diagnostics.get("side") or (largest > 0) - (largest < 0),
        steps,
        final,
        allocation.get("cascade_recommendation") or (before.level if before else CALM),
        _why(allocation, steps, final),
        trail if kelly is None else (*trail[1 - TRAIL_MAX :], kelly["calibration"]),
        allocation["timestamp_ns"],
    )


def _why(allocation: Mapping[str, Any], steps: Mapping[str, StageStep], final: int) -> str:
    """Return the reason for a zero size, else the reason of the stage that removed most."""
    if allocation["trigger"]["kind"] == "expiry":
        return "forecast expired"
    for name, step in steps.items():
        if not final and not step.after and (step.reason or step.before):
            return step.reason or _words(name)
    name, most = max(steps.items(), key=lambda item: item[1].taken, default=("", StageStep(0, 0, "")))
    if most.taken > 0:
        return most.reason or _words(name)
    return "too small a change" if allocation["symbol"] in allocation["kept"] else ""

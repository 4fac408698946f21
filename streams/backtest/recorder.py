"""What is kept of a backtest: one row for each instant at which candles ended, and one for each decision."""

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engines.handlers.effects import FoldResult, Journaled
from engines.models import conformal
from engines.parameters import ConformalParams
from engines.pipeline.decide import Decision
from engines.pipeline.publish import Published
from engines.state.partition import State
from engines.state.tables import Key
from schemas.vocabulary import RECOMMENDATIONS
from streams.backtest.broker import BacktestBroker

Column = NDArray[np.float64]
DAY_NS: Final = 86_400 * 10**9


class Curve:
    """Profit, exposure and costs over time, all in USD, as they stood when candles had ended."""

    def __init__(self, symbols: Sequence[str], strategies: Sequence[str]) -> None:
        self.symbols, self.strategies = tuple(symbols), tuple(strategies)
        self.time_ns = array("q")
        self.profit, self.gross, self.net = array("d"), array("d"), array("d")
        self.costs, self.funding, self.traded = array("d"), array("d"), array("d")
        self.held = {symbol: array("d") for symbol in symbols}
        """Signed notional of each symbol."""
        self.closes = {symbol: array("d") for symbol in symbols}
        """Last close of each symbol; NaN before the first."""
        self.earned = {strategy: array("d") for strategy in strategies}
        """Profit of each strategy."""

    def add(self, time_ns: int, broker: BacktestBroker) -> None:
        """Append the state of the accounts."""
        self.time_ns.append(time_ns)
        held = dict.fromkeys(self.symbols, 0.0)
        gross = 0.0
        for symbol, usd in broker.exposures():
            held[symbol] += usd
            gross += abs(usd)
        self.gross.append(gross)
        self.net.append(sum(held.values()))
        for symbol in self.symbols:
            self.held[symbol].append(held[symbol])
            self.closes[symbol].append(broker.prices.get(symbol, np.nan))
        accounts = broker.accounts.values()
        self.profit.append(broker.profit())
        self.costs.append(sum(each.fees_usd + each.slippage_usd for each in accounts))
        self.funding.append(sum(each.funding_usd for each in accounts))
        self.traded.append(sum(each.traded_usd for each in accounts))
        earned = dict.fromkeys(self.strategies, 0.0)
        for (_, strategy, _), usd in broker.attribution.profits():
            earned[strategy] = earned.get(strategy, 0.0) + usd
        for strategy, column in self.earned.items():
            column.append(earned[strategy])

    def column(self, name: str) -> Column:
        """Return a column as an array."""
        return np.array(getattr(self, name), dtype=np.float64)

    def days(self) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Return each UTC day (days since 1970), and the index of its last row. A candle's end belongs to its day."""
        day = (np.array(self.time_ns, dtype=np.int64) - 1) // DAY_NS
        last = np.flatnonzero(np.append(np.diff(day) != 0, True)) if len(day) else np.array([], dtype=np.intp)
        return day[last], last


class DecisionLog:
    """Every allocation in columns, and how often each cap bound."""

    def __init__(self) -> None:
        self.time_ns, self.offset, self.sequence = array("q"), array("q"), array("q")
        self.gross_usd, self.value_usd, self.size_usd = array("d"), array("d"), array("d")
        self.portfolio_id: list[str] = []
        self.trigger: list[str] = []
        self.trigger_id: list[str] = []
        self.strategy_id: list[str | None] = []
        self.symbol: list[str | None] = []
        self.bound: list[str] = []
        self.moved = array("b")
        self.reasons: dict[str, int] = {}
        """Why the trigger's cell was sized to 0 at once, and how often."""
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.time_ns)

    def add(self, entry: Journaled, published: Published) -> None:
        """Append an allocation."""
        decision = published.decision
        strategy, symbol = decision.trigger.cell or (None, None)
        self.time_ns.append(entry.journaled_at_ns)
        self.offset.append(entry.offset)
        self.sequence.append(published.sequence)
        self.gross_usd.append(sum(map(abs, decision.cents)) / 100.0)
        self.value_usd.append(decision.book.value_usd)
        size_usd, reason = _size(decision)
        self.size_usd.append(size_usd)
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.portfolio_id.append(decision.portfolio_id)
        self.trigger.append(decision.trigger.kind)
        self.trigger_id.append(decision.trigger.id)
        self.strategy_id.append(strategy)
        self.symbol.append(symbol)
        text = ";".join(f"{level}:{name}" for level, name in decision.bound)
        self.bound.append(self._names.setdefault(text, text))
        self.moved.append(decision.moved)

    def columns(self, journal_id: str) -> dict[str, Any]:
        """Return the columns by name: arrays for numbers, lists for texts."""
        names = zip(self.offset, self.portfolio_id, strict=True)
        return {
            "timestamp_ns": np.array(self.time_ns, dtype=np.int64),
            "decision_id": [f"{journal_id}-0-{offset}-{portfolio}" for offset, portfolio in names],
            "portfolio_id": self.portfolio_id,
            "sequence": np.array(self.sequence, dtype=np.int64),
            "trigger": self.trigger,
            "trigger_id": self.trigger_id,
            "strategy_id": self.strategy_id,
            "symbol": self.symbol,
            "size_usd": np.array(self.size_usd),
            "gross_usd": np.array(self.gross_usd),
            "value_usd": np.array(self.value_usd),
            "moved": np.array(self.moved, dtype=np.bool_),
            "bound": self.bound,
        }


def _size(decision: Decision) -> tuple[float, str]:
    """Return the signed size of the trigger's cell in USD, NaN if it has none, and why stage 1 or 2 gave 0."""
    cells = decision.holdings.cells
    if decision.trigger.cell not in cells:
        return float("nan"), ""
    place = cells.index(decision.trigger.cell)
    size = decision.sizes[place]
    return decision.cents[place] / 100.0, "" if size is None else size.reason


class CoverageLog:
    """How often a return lay inside the conformal interval that was in force when it came."""

    def __init__(self, params: ConformalParams) -> None:
        self._params = params
        self._widths: dict[Key, float | None] = {}
        self.inside: dict[str, int] = {}
        """By strategy, of the outcomes that met a finite interval."""
        self.total: dict[str, int] = {}

    def add(self, entry: Journaled, folded: FoldResult, state: State) -> None:
        """Hold an outcome that was learnt from against the interval, and note the next one."""
        residual = next((note.value for note in folded.notes if note.name == "residual"), None)
        if residual is None:
            return
        body = entry.body
        strategy = body["strategy_id"]
        key = (body.get("portfolio_id", "main"), strategy, body["symbol"])
        width = self._widths.get(key)
        if width is not None:
            self.total[strategy] = self.total.get(strategy, 0) + 1
            self.inside[strategy] = self.inside.get(strategy, 0) + (residual <= width)
        scores = state.scores.get(key)
        if scores is not None and len(scores.window) >= conformal.needed(self._params):
            self._widths[key] = conformal.quantile(scores.ranked, scores.level)


class CascadeLog:
    """The cascade levels of held sides over time: when a cut came into force, and when it ended."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, str, str, str, float]] = []
        """(time, symbol, side, level, score) of each change of a level."""
        self._levels: dict[tuple[str, int], int] = {}

    def add(self, entry: Journaled, folded: FoldResult) -> None:
        """Note the readings that change a level."""
        for look in folded.looks:
            key = (look.symbol, look.side)
            if self._levels.get(key, 0) != look.level:
                self._levels[key] = look.level
                side = "long" if look.side > 0 else "short"
                level = RECOMMENDATIONS[look.level]
                self.changes.append((entry.journaled_at_ns, look.symbol, side, level, look.score))

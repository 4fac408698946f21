"""All that sizing knows of one journal partition: records by table, and the indexes derived from them."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engines.models import correlation, moments
from engines.parameters import DecisionParams, tree_hash
from engines.pipeline.caps import Limits
from engines.pipeline.cell_sizing import Bet, CellSize
from engines.pipeline.portfolio_sizing import Correlations
from engines.state import codec
from engines.state.records import Book, CellRecord, CellTarget, Market, Questions, Strategies

TABLES = (
    "kelly-posteriors",
    "conformal-scores",
    "predictions",
    "correlations",
    "markets",
    "regimes",
    "strategies",
    "books",
    "targets",
    "states",
    "questions",
    "gates",
)
MARKET_WIDE = "*"
POLICY = "policy"
"""Key in `states` of the policy's modes, beside "*" of the trading states."""
GATHERED = "gathered"
"""Key in `correlations` of the returns that belong to no closed bar yet; its other keys are parts of the moments."""

Key = tuple[str, ...]


@dataclass(slots=True)
class PartitionProgress:
    """What is true of the whole partition and travels with its offset; the one record that is changed in place."""

    journal_id: str
    partitions: int
    now_ns: int
    """Journal time: the running maximum of `journaled_at_ns`."""
    inputs_hash: str
    settings: dict[str, Any]
    settings_hash: str
    sources: dict[str, dict[str, Any]]
    """Per source topic: {"epoch": int, "offsets": {partition: highest offset}}."""
    steps: dict[str, int]
    """Per partition of `prices`: the highest step."""
    decision_version: int
    successor: int = 0
    """The version that this state was handed over to, and for which alone it goes on; 0: none."""


class State:
    """Records of one journal partition, folded up to one offset. Its owner alone mutates it.

    `touched` collects (table, key) of each record that a fold changed.
    """

    def __init__(self, partition: int, version: int = 0) -> None:
        """`version`: of the decisions; 0: that of this code."""
        self.partition, self.version = partition, version
        self.progress: PartitionProgress | None = None
        self.bets: dict[Key, Bet] = {}
        """Stages 2 and 3 of each cell as last computed: a memory of a pure function, of no other meaning."""
        self.sizes: dict[Key, tuple[tuple[Any, ...], CellSize]] = {}
        """The same of stages 2 to 8, beside what they were computed from."""
        self.shares: dict[str, tuple[Strategies, tuple[str, ...], dict[str, float]]] = {}
        """The same of each portfolio's live strategies and their weights."""
        self.moments = moments.begin()
        self.gathered: dict[int, dict[str, float]] = {}
        """Log return of each symbol over bars that are not closed for all, by bar."""
        self.closed_bar = -1
        """Newest bar that is closed for all."""
        self.oldest_price_ns = 0
        """No price that counts as fresh is older: before it is too old none has to be looked at. 0 means: look."""
        self._parts: dict[str, bytes] = {}
        self._sized_with: Correlations | None = None
        self.use(DecisionParams())
        self.tables: dict[str, dict[Key, Any]] = {table: {} for table in TABLES}
        self.touched: dict[tuple[str, Key], None] = {}
        self.cells_of: dict[str, list[tuple[str, str]]] = {}
        self.known: dict[str, dict[str, int]] = {}
        """By portfolio and strategy: how many cells there ever were."""
        self.holders: dict[str, dict[str, None]] = {}
        self.watches: dict[str, dict[str, float]] = {}
        self.waiting: dict[str, dict[str, None]] = {}
        """By symbol: portfolios whose last full decision could not size it for want of a fresh price."""
        self.elevated: dict[str, None] = {}
        self._expiries: list[tuple[int, Key]] = []
        self._deadlines: list[tuple[int, tuple[str, str, str, int]]] = []

    @property
    def now_ns(self) -> int:
        """Journal time, 0 before Genesis."""
        return 0 if self.progress is None else self.progress.now_ns

    def decision_id(self, portfolio: str, offset: int) -> str:
        """Return what names the decision of a portfolio at an entry."""
        journal_id = "" if self.progress is None else self.progress.journal_id
        return f"{journal_id}-{self.partition}-{offset}-{portfolio}"

    # -- records ---------------------------------------------------------------------------------------------------
    def get(self, table: str, key: Key) -> Any:
        """Return a record, or None."""
        return self.tables[table].get(key)

    def put(self, table: str, key: Key, record: Any) -> None:
        """Store a record and mark it as touched."""
        self.tables[table][key] = record
        self.touched[table, key] = None

    def drop(self, table: str, key: Key) -> None:
        """Delete a record, if it is there, and mark it as touched."""
        if self.tables[table].pop(key, None) is not None:
            self.touched[table, key] = None

    def use(self, params: DecisionParams) -> None:
        """Put settings in force."""
        self.params = params
        self.settings_hash = tree_hash(params)
        self.bets.clear()
        self.sizes.clear()
        self._sized_with = None
        self.limits = _limits(params)

    # -- books and cells -------------------------------------------------------------------------------------------
    def book(self, portfolio: str) -> Book:
        """Return a portfolio's book; a portfolio that was never heard of begins with the configured value."""
        found: Book | None = self.tables["books"].get((portfolio,))
        if found is not None:
            return found
        value = float(self.params.portfolio.initial_value_usd)
        return Book(value, value, 0, "", None, 0, ())

    def put_book(self, portfolio: str, book: Book) -> None:
        """Store a portfolio's book; its watches, and what it waits for, replace those before in the indexes."""
        before: Book | None = self.tables["books"].get((portfolio,))
        if before is not None:
            for symbol, _ in before.watches:
                del self.watches[symbol][portfolio]
            for symbol in before.waiting:
                del self.waiting[symbol][portfolio]
        self.put("books", (portfolio,), book)
        self._watch(portfolio, book)

    def put_cell(self, key: Key, cell: CellRecord) -> None:
        """Store a cell; a live forecast enters the portfolio's cells and the expiries."""
        if key not in self.tables["predictions"]:
            self._count(key)
        self.put("predictions", key, cell)
        if cell.forecast is not None:
            self._enter(key)
            heapq.heappush(self._expiries, (cell.forecast.expires_ns, key))

    def put_target(self, key: Key, target: CellTarget) -> None:
        """Store what was published for a cell; nothing held is no record."""
        if target.cents:
            self.put("targets", key, target)
            self._enter(key)
            self.holders.setdefault(key[2], {})[key[0]] = None
        else:
            self.drop("targets", key)

    def put_questions(self, portfolio: str, record: Questions) -> None:
        """Store what a portfolio has asked the policy; open questions enter the deadlines."""
        before: Questions | None = self.tables["questions"].get((portfolio,))
        self.put("questions", (portfolio,), record)
        known = () if before is None else before.asked
        self._await(portfolio, Questions((), tuple(each for each in record.asked if each not in known), awaited=False))

    def put_market(self, symbol: str, market: Market) -> None:
        """Store a symbol's market."""
        self.put("markets", (symbol,), market)
        self._raise_or_lower(symbol, market)

    def put_moments(self) -> None:
        """Store the moments, after a bar has moved them."""
        before, self._parts = self._parts, moments.to_parts(self.moments)
        for name in (*before, *self._parts):
            self.touched["correlations", (name,)] = None
        self._sized_with = None

    def put_gathered(self) -> None:
        """Store the returns that belong to no closed bar yet, after one has come or gone."""
        self.touched["correlations", (GATHERED,)] = None

    def correlations(self) -> Correlations:
        """Return the shrunk correlations of all symbols, which last until the next bar or other settings."""
        if self._sized_with is None:
            found = correlation.shrunk(self.moments, self.params.risk_management.correlation)
            self._sized_with = Correlations(self.moments.symbols, found.matrix, found.mean)
        return self._sized_with

    def cells(self, portfolio: str) -> list[tuple[str, str]]:
        """Return (strategy, symbol) of the portfolio's cells with a forecast or a target, sorted."""
        return self.cells_of.get(portfolio, [])

    def forget_idle_cells(self, portfolio: str) -> None:
        """Drop from the indexes the cells that have neither forecast nor target."""
        predictions, targets = self.tables["predictions"], self.tables["targets"]

        def busy(cell: tuple[str, str]) -> bool:
            key = (portfolio, *cell)
            known = predictions.get(key)
            return key in targets or (known is not None and known.forecast is not None)

        kept = [cell for cell in self.cells_of.get(portfolio, []) if busy(cell)]
        self.cells_of[portfolio] = kept
        held = [symbol for strategy, symbol in kept if (portfolio, strategy, symbol) in targets]
        for symbol, portfolios in self.holders.items():
            if portfolio in portfolios and symbol not in held and not self.has_position(portfolio, symbol):
                del portfolios[portfolio]

    def has_position(self, portfolio: str, symbol: str) -> bool:
        """Return whether a known position is open."""
        positions = self.book(portfolio).positions
        return positions is not None and any(name == symbol and quantity for name, quantity in positions)

    def has_forecast(self, portfolio: str, symbol: str) -> bool:
        """Return whether a strategy of the portfolio has a live forecast on the symbol."""
        predictions = self.tables["predictions"]
        return any(
            (cell := predictions.get((portfolio, strategy, name))) is not None and cell.forecast is not None
            for strategy, name in self.cells(portfolio)
            if name == symbol
        )

    def due(self, now_ns: int) -> list[Key]:
        """Take the cells whose forecast has expired by now, sorted; each is told once."""
        if not self._expiries or self._expiries[0][0] > now_ns:
            return []
        expired: dict[Key, None] = {}
        while self._expiries and self._expiries[0][0] <= now_ns:
            expires_ns, key = heapq.heappop(self._expiries)
            cell = self.tables["predictions"].get(key)
            if cell is not None and cell.forecast is not None and cell.forecast.expires_ns == expires_ns:
                expired[key] = None
        return sorted(expired)

    def overdue(self, now_ns: int) -> list[tuple[str, str, str, int]]:
        """Take the questions whose deadline has passed: (portfolio, strategy, symbol, offset), sorted; each once."""
        passed: dict[tuple[str, str, str, int], None] = {}
        while self._deadlines and self._deadlines[0][0] < now_ns:
            passed[heapq.heappop(self._deadlines)[1]] = None
        return sorted(passed)

    def _await(self, portfolio: str, record: Questions) -> None:
        for asked in record.asked:
            if asked.status == "open":
                place = (portfolio, asked.strategy_id, asked.symbol, asked.offset)
                heapq.heappush(self._deadlines, (asked.deadline_ns, place))

    def _count(self, key: Key) -> None:
        strategies = self.known.setdefault(key[0], {})
        strategies[key[1]] = strategies.get(key[1], 0) + 1

    def _enter(self, key: Key) -> None:
        cells = self.cells_of.get(key[0], [])
        cell = (key[1], key[2])
        if cell not in cells:
            self.cells_of[key[0]] = sorted([*cells, cell])

    def _watch(self, portfolio: str, book: Book) -> None:
        for symbol, price in book.watches:
            self.watches.setdefault(symbol, {})[portfolio] = price
        for symbol in book.waiting:
            self.waiting.setdefault(symbol, {})[portfolio] = None

    def _raise_or_lower(self, symbol: str, market: Market) -> None:
        if any(latch is not None and latch.level for latch in (market.long, market.short)):
            self.elevated[symbol] = None
        else:
            self.elevated.pop(symbol, None)

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def encode(self, table: str, key: Key) -> bytes | None:
        """Return a record as JSON bytes, or None where it is deleted."""
        if table == "correlations":
            return self._part(key[0])
        record = self.tables[table].get(key)
        return None if record is None else codec.encode(record)

    def _part(self, name: str) -> bytes | None:
        """Return a part of what correlations are made of, None where it is needed no more."""
        if name == GATHERED:
            return orjson.dumps([self.closed_bar, [[bar, rows] for bar, rows in sorted(self.gathered.items())]])
        return self._parts.get(name)

    def restore(self, progress: PartitionProgress | None, records: Mapping[tuple[str, Key], bytes]) -> None:
        """Become the state that a checkpoint holds."""
        self.__init__(self.partition, self.version)  # type: ignore[misc]
        self.progress = progress
        if progress is not None:
            self.use(DecisionParams.model_validate(progress.settings))
        for (table, key), value in sorted(records.items()):
            if table != "correlations":
                self.tables[table][key] = codec.decode(table, value)
        self._restore_correlations(
            {key[0]: value for (table, key), value in records.items() if table == "correlations"}
        )
        self._derive()

    def _restore_correlations(self, parts: dict[str, bytes]) -> None:
        gathered = parts.pop(GATHERED, None)
        if gathered is not None:
            self.closed_bar, rows = orjson.loads(gathered)
            self.gathered = dict(rows)
        if parts:
            self.moments, self._parts = moments.from_parts(parts), parts

    def _derive(self) -> None:
        for key, cell in self.tables["predictions"].items():
            self._count(key)
            if cell.forecast is not None:
                self._enter(key)
                heapq.heappush(self._expiries, (cell.forecast.expires_ns, key))
        for key in self.tables["targets"]:
            self._enter(key)
            self.holders.setdefault(key[2], {})[key[0]] = None
        for (portfolio,), book in self.tables["books"].items():
            self._watch(portfolio, book)
            for symbol, quantity in book.positions or ():
                if quantity:
                    self.holders.setdefault(symbol, {})[portfolio] = None
        for (symbol,), market in self.tables["markets"].items():
            self._raise_or_lower(symbol, market)
        for (portfolio,), record in self.tables["questions"].items():
            self._await(portfolio, record)


def _limits(params: DecisionParams) -> Limits:
    """Return the limits of stages 11 and 13."""
    risk, criteria = params.risk_management, params.validation_criteria
    return Limits(
        position=risk.max_position_pct,
        strategy=risk.max_strategy_allocation,
        gross=min(risk.max_portfolio_allocation, risk.max_leverage),
        minimum_cents=int(100.0 * criteria.min_position_usd),
        maximum_cents=int(100.0 * criteria.max_position_usd),
        tolerance=risk.cap_tolerance,
    )

"""All that sizing knows of one journal partition: records by table, and the indexes derived from them."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engines.models import moments
from engines.parameters import DecisionParams, tree_hash
from engines.state import codec, overrides
from engines.state.overrides import Overrides
from engines.state.records import (
    Book,
    CellPosterior,
    CellRecord,
    CellTarget,
    Gate,
    Market,
    Pool,
    Questions,
    RegimeState,
    ScopeOverrides,
    Scores,
    Strategies,
)
from engines.state.tables import Key, RecordTable, TouchedRecords

MARKET_WIDE = "*"
NEVER_NS = 1 << 63
"""Later than any time."""
POLICY = "policy"
"""Key in `states` of the policy's modes; the trading states are under "*"."""
GATHERED = "gathered"
"""Key in `correlations` of the returns that belong to no closed bar yet; its other keys are parts of the moments."""


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
    """The version that this state was handed over to; only that one may continue. 0: none."""


class State:
    """Records of one journal partition, folded up to one offset. Only its owner mutates it.

    `touched` collects (table, key) of each record that a fold changed.
    """

    def __init__(self, partition: int, version: int = 0) -> None:
        """`version`: decision version; 0: the version of this code."""
        self.partition, self.version = partition, version
        self.progress: PartitionProgress | None = None
        self.touched: TouchedRecords = {}
        self.posteriors: RecordTable[CellPosterior] = RecordTable("kelly-posteriors", self.touched)
        self.pools: RecordTable[Pool] = RecordTable("pools", self.touched)
        self.scores: RecordTable[Scores] = RecordTable("conformal-scores", self.touched)
        self.predictions: RecordTable[CellRecord] = RecordTable("predictions", self.touched)
        self.markets: RecordTable[Market] = RecordTable("markets", self.touched)
        self.regimes: RecordTable[RegimeState] = RecordTable("regimes", self.touched)
        self.strategies: RecordTable[Strategies] = RecordTable("strategies", self.touched)
        self.books: RecordTable[Book] = RecordTable("books", self.touched)
        self.targets: RecordTable[CellTarget] = RecordTable("targets", self.touched)
        self.scopes: RecordTable[ScopeOverrides] = RecordTable("states", self.touched)
        self.questions: RecordTable[Questions] = RecordTable("questions", self.touched)
        self.gates: RecordTable[Gate] = RecordTable("gates", self.touched)
        self.tables: dict[str, RecordTable[Any]] = {
            "kelly-posteriors": self.posteriors,
            "pools": self.pools,
            "conformal-scores": self.scores,
            "predictions": self.predictions,
            "markets": self.markets,
            "regimes": self.regimes,
            "strategies": self.strategies,
            "books": self.books,
            "targets": self.targets,
            "states": self.scopes,
            "questions": self.questions,
            "gates": self.gates,
        }
        """By table name; `correlations` is made of moments and gathered returns."""
        self.moments = moments.begin()
        self.moments_changes = 0
        """How often the moments have changed since this state was made."""
        self.gathered: dict[int, dict[str, float]] = {}
        """Log return of each symbol over bars that are not closed for all, by bar."""
        self.closed_bar = -1
        """Newest bar that is closed for all."""
        self._parts: dict[str, bytes] = {}
        self.shares: dict[str, tuple[Strategies, tuple[str, ...], dict[str, float]]] = {}
        """Memo of each portfolio's renormalised weights, safe to drop."""
        self.memo: object = None
        """Memo cache of the pipeline, safe to drop."""
        self.oldest_price_ns = 0
        """No fresh price is older; until it is too old, no price has to be looked at. 0: look."""
        self.oldest_change_ns = 0
        """No change of a target that waits for a report is older; likewise."""
        self.use(DecisionParams())
        self.cells_of: dict[str, list[tuple[str, str]]] = {}
        self.known: dict[str, dict[str, dict[str, None]]] = {}
        """By portfolio and strategy: symbols of its cells."""
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
    def use(self, params: DecisionParams) -> None:
        """Put settings in force."""
        self.params = params
        self.settings_hash = tree_hash(params)
        self.memo = None

    # -- books and cells -------------------------------------------------------------------------------------------
    def book(self, portfolio: str) -> Book:
        """Return a portfolio's book; a new portfolio starts with the configured value."""
        found = self.books.get((portfolio,))
        if found is not None:
            return found
        value = float(self.params.portfolio.initial_value_usd)
        return Book(
            value_usd=value, peak_usd=value, sequence=0, last_hash="", positions=None, positions_ns=0, watches=()
        )

    def ordered(self, kind: str) -> Overrides:
        """Return what operators have ordered by scope: trading states (`MARKET_WIDE`) or policy modes (`POLICY`)."""
        record = self.scopes.get((kind,))
        return overrides.NONE if record is None else record.scopes

    def put_book(self, portfolio: str, book: Book) -> None:
        """Store a portfolio's book; its watches, and what it waits for, replace those before in the indexes."""
        before = self.books.get((portfolio,))
        if before is not None:
            for symbol, _ in before.watches:
                del self.watches[symbol][portfolio]
            for symbol in before.waiting:
                del self.waiting[symbol][portfolio]
                if not self.waiting[symbol]:
                    del self.waiting[symbol]
        self.books.put((portfolio,), book)
        self._watch(portfolio, book)

    def put_cell(self, key: Key, cell: CellRecord) -> None:
        """Store a cell; a live forecast enters the portfolio's cells and the expiries."""
        self._know(key)
        self.predictions.put(key, cell)
        if cell.forecast is not None:
            self._enter(key)
            heapq.heappush(self._expiries, (cell.forecast.expires_ns, key))

    def drop_cell(self, key: Key) -> None:
        """Drop the records of a cell that has neither forecast nor target; with the last on a symbol, its regime."""
        portfolio, strategy, symbol = key
        for table in (self.predictions, self.posteriors, self.scores):
            table.drop(key)
        strategies = self.known[portfolio]
        del strategies[strategy][symbol]
        if not strategies[strategy]:
            del strategies[strategy]
        if not strategies:
            del self.known[portfolio]
        if not any(symbol in symbols for symbols in strategies.values()):
            self.regimes.drop((portfolio, symbol))
        self.forget_idle_cells(portfolio)

    def put_target(self, key: Key, target: CellTarget) -> None:
        """Store what was published for a cell; nothing held is no record."""
        if target.cents:
            self.targets.put(key, target)
            self._enter(key)
            self.holders.setdefault(key[2], {})[key[0]] = None
        else:
            self.targets.drop(key)

    def put_questions(self, portfolio: str, record: Questions) -> None:
        """Store what a portfolio has asked the policy; open questions enter the deadlines."""
        before = self.questions.get((portfolio,))
        self.questions.put((portfolio,), record)
        known = () if before is None else before.asked
        self._await(portfolio, Questions((), tuple(each for each in record.asked if each not in known), awaited=False))

    def put_market(self, symbol: str, market: Market) -> None:
        """Store a symbol's market."""
        self.markets.put((symbol,), market)
        self._raise_or_lower(symbol, market)

    def put_moments(self) -> None:
        """Store the moments, after a bar has moved them."""
        before, self._parts = self._parts, moments.to_parts(self.moments)
        for name in (*before, *self._parts):
            self.touched["correlations", (name,)] = None
        self.moments_changes += 1

    def put_gathered(self) -> None:
        """Store the returns that belong to no closed bar yet, after one has come or gone."""
        self.touched["correlations", (GATHERED,)] = None

    def cells(self, portfolio: str) -> list[tuple[str, str]]:
        """Return (strategy, symbol) of the portfolio's cells with a forecast or a target, sorted."""
        return self.cells_of.get(portfolio, [])

    def forget_idle_cells(self, portfolio: str) -> None:
        """Drop from the indexes the cells that have neither forecast nor target."""
        predictions, targets = self.predictions, self.targets

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

    def first_forecast(self, portfolio: str, symbol: str) -> tuple[str, str] | None:
        """Return the portfolio's first cell by name with a live forecast on the symbol, None where it has none."""
        for strategy, name in self.cells(portfolio):
            known = self.predictions.get((portfolio, strategy, name)) if name == symbol else None
            if known is not None and known.forecast is not None:
                return strategy, name
        return None

    def due(self, now_ns: int) -> list[Key]:
        """Return the cells whose forecast has expired by now, sorted; each only once."""
        if not self._expiries or self._expiries[0][0] > now_ns:
            return []
        expired: dict[Key, None] = {}
        while self._expiries and self._expiries[0][0] <= now_ns:
            expires_ns, key = heapq.heappop(self._expiries)
            cell = self.predictions.get(key)
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

    def _know(self, key: Key) -> None:
        self.known.setdefault(key[0], {}).setdefault(key[1], {})[key[2]] = None

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
            self.moments_changes += 1

    def _derive(self) -> None:
        for key, cell in self.predictions.items():
            self._know(key)
            if cell.forecast is not None:
                self._enter(key)
                heapq.heappush(self._expiries, (cell.forecast.expires_ns, key))
        for key in self.targets:
            self._enter(key)
            self.holders.setdefault(key[2], {})[key[0]] = None
        for (portfolio,), book in self.books.items():
            self._watch(portfolio, book)
            for symbol, quantity in book.positions or ():
                if quantity:
                    self.holders.setdefault(symbol, {})[portfolio] = None
        for (symbol,), market in self.markets.items():
            self._raise_or_lower(symbol, market)
        for (portfolio,), record in self.questions.items():
            self._await(portfolio, record)

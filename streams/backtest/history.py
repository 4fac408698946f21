"""What a strategy sees of the market: the candles that have ended, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.history.candles import Candle, Candles

Column = NDArray[np.float64]


class SymbolHistory:
    """The ended candles of one symbol, oldest first, as read-only arrays.

    Later candles are not in the arrays yet, nor in the memory behind them.
    """

    __slots__ = ("_columns", "_ends", "_size")

    def __init__(self, capacity: int) -> None:
        self._columns = np.full((5, capacity), np.nan)
        self._ends = np.zeros(capacity, dtype=np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, candle: Candle, end_ns: int) -> None:
        """Append a candle that has ended."""
        self._columns[:, self._size] = candle[1:6]
        self._ends[self._size] = end_ns
        self._size += 1

    @property
    def end_ns(self) -> NDArray[np.int64]:
        """When each candle ended, ns since 1970."""
        ends = self._ends[: self._size]
        ends.flags.writeable = False
        return ends

    @property
    def open(self) -> Column:
        """First price of each candle, USD."""
        return self._column(0)

    @property
    def high(self) -> Column:
        """Highest price, USD."""
        return self._column(1)

    @property
    def low(self) -> Column:
        """Lowest price, USD."""
        return self._column(2)

    @property
    def close(self) -> Column:
        """Last price, USD."""
        return self._column(3)

    @property
    def volume(self) -> Column:
        """Coins traded."""
        return self._column(4)

    def _column(self, number: int) -> Column:
        column = self._columns[number, : self._size]
        column.flags.writeable = False
        return column


class History(Mapping[str, SymbolHistory]):
    """The past of all symbols at one time. `now_ns`: that time, at which a strategy's signals are sent."""

    def __init__(self, market: Sequence[Candles]) -> None:
        self.now_ns = 0
        self.ended: tuple[str, ...] = ()
        """Symbols of which a candle has just ended."""
        self._capacity = {each.symbol: len(each.rows) for each in market}
        self._symbols: dict[str, SymbolHistory] = {}

    def add(self, symbol: str, candle: Candle, end_ns: int) -> None:
        """Append a candle that has ended. A symbol is absent until its first candle has."""
        if symbol not in self._symbols:
            self._symbols[symbol] = SymbolHistory(self._capacity[symbol])
        self._symbols[symbol].add(candle, end_ns)

    def __getitem__(self, symbol: str) -> SymbolHistory:
        return self._symbols[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)

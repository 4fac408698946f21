"""Where a backtest's signals come from: built-in strategies, a function, or messages read from a file.

Each source is asked at the end of candles, and returns the signals that it sends one second later.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple, Protocol

import orjson

from schemas import wire
from schemas.errors import ConfigurationException, InvalidMessage, InvalidSignalException
from schemas.signal import TacticalSignal
from streams.backtest.history import History
from streams.history import strategies
from streams.history.candle_row import SECOND_NS, Candle
from streams.history.candles import Candles
from streams.history.strategies import HORIZON, REACTION_NS, STRATEGIES, WARMUP, Tape
from streams.reports.weight_history import instant

OnBar = Callable[[History], Iterable[Any] | None]
"""A user's strategy: from the past to the signals of now."""
NAMED_VALUE_CHARS: Final = 80
NOT_AN_ID: Final = re.compile(r"[^A-Za-z0-9._:/-]")


class SentSignal(NamedTuple):
    """One signal: when it is sent, the message, and its bytes."""

    time_ns: int
    message: TacticalSignal
    value: bytes


class SignalSource(Protocol):
    """Produces signals as candles end."""

    def names(self) -> Sequence[str]:
        """Return the strategies it may send signals of, for messages and reports."""

    def candles(self, ended: Sequence[tuple[str, Candle]], end_ns: int) -> None:
        """Take the candles that have just ended."""

    def between(self, after_ns: int, until_ns: int) -> Iterator[SentSignal]:
        """Yield the signals that are sent after one time and until another, in order."""


# -- built-in strategies -----------------------------------------------------------------------------------------------
class BuiltIn:
    """The strategies of `streams/history/strategies.py`, one second after each candle of a symbol."""

    def __init__(self, names: Sequence[str], market: Sequence[Candles]) -> None:
        """Run the strategies `names`.

        Raises:
            ConfigurationException: there is no such strategy.
        """
        for name in names:
            if name not in STRATEGIES:
                rule = f"must be one of {', '.join(STRATEGIES)}, or package.module:function, was {name!r}"
                raise ConfigurationException("command line", "--strategy", rule)
        self._names = tuple(dict.fromkeys(names))
        self._widths = {each.symbol: each.width_s for each in market}
        self._tapes: dict[str, Tape] = {}
        self._ended: list[str] = []
        self._at_ns = 0

    def names(self) -> Sequence[str]:
        """Return the strategies."""
        return self._names

    def candles(self, ended: Sequence[tuple[str, Candle]], end_ns: int) -> None:
        """Add candles to the running statistics."""
        for symbol, candle in ended:
            self._tapes[symbol] = strategies.step(self._tapes.get(symbol), candle)
        self._ended, self._at_ns = [symbol for symbol, _ in ended], end_ns + REACTION_NS

    def between(self, after_ns: int, until_ns: int) -> Iterator[SentSignal]:
        """Yield the signals of the candles that have just ended, once."""
        if not after_ns < self._at_ns <= until_ns:
            return
        for symbol in self._ended:
            tape, width_s = self._tapes[symbol], self._widths[symbol]
            if tape.candles < WARMUP:
                continue
            for name in self._names:
                fields = strategies.signal(name, symbol, tape, self._at_ns, HORIZON * width_s, width_s)
                yield SentSignal(self._at_ns, TacticalSignal.model_construct(**fields), orjson.dumps(fields))


# -- a function --------------------------------------------------------------------------------------------------------
class OfFunction:
    """A function `on_bar(history) -> signals`, called one second after candles have ended.

    A signal is a mapping with the fields of a TacticalSignal. `timestamp_ns`, `strategy_id` (the function's name) and
    `signal_id` are filled in where they are absent.
    """

    def __init__(self, on_bar: OnBar, market: Sequence[Candles], name: str = "") -> None:
        self._on_bar, self._history = on_bar, History(market)
        self._name = NOT_AN_ID.sub("", name or getattr(on_bar, "__name__", ""))[:48] or "strategy"
        self._known = frozenset(each.symbol for each in market)
        self._due_ns = -1
        self._sent = 0

    def names(self) -> Sequence[str]:
        """Return the function's name."""
        return (self._name,)

    def candles(self, ended: Sequence[tuple[str, Candle]], end_ns: int) -> None:
        """Append the candles to the history."""
        for symbol, candle in ended:
            self._history.add(symbol, candle, end_ns)
        self._history.ended = tuple(symbol for symbol, _ in ended)
        self._history.now_ns = self._due_ns = end_ns + REACTION_NS

    def between(self, after_ns: int, until_ns: int) -> Iterator[SentSignal]:
        """Call the function, if candles have ended, and yield its signals.

        Raises:
            InvalidSignalException: it raised, or returned something that is not a signal of now.
        """
        if not after_ns < self._due_ns <= until_ns:
            return
        for place, said in self._called():
            yield self._signal(place, said)

    def _called(self) -> list[tuple[str, Any]]:
        where = f"{self._name} at {_at(self._history.now_ns)}"
        try:
            found = self._on_bar(self._history)
            signals = [] if found is None else [found] if isinstance(found, Mapping) else list(found)
        except Exception as error:
            text = f"{where}: must return signals, raised {type(error).__name__}: {_short(error)}"
            raise InvalidSignalException("inconsistent", "", text) from error
        return [(f"{where}, signal {number}", each) for number, each in enumerate(signals, 1)]

    def _signal(self, place: str, said: Any) -> SentSignal:
        if isinstance(said, TacticalSignal):
            said = said.model_dump(exclude_none=True)
        if not isinstance(said, Mapping):
            text = f"{place}: must be a mapping with the fields of a signal, was {type(said).__name__}"
            raise InvalidSignalException("wrong_type", "", text)
        now_ns = self._history.now_ns
        self._sent += 1
        given = {"strategy_id": self._name, "timestamp_ns": now_ns, "signal_id": f"{self._name}-{self._sent}"[-64:]}
        found = decoded({**given, **said}, place)
        if found.message.timestamp_ns > now_ns:
            rule = f"must not be later than now, {now_ns}, was {found.message.timestamp_ns}"
            raise InvalidSignalException("in_future", "timestamp_ns", f"{place}: timestamp_ns: {rule}")
        check_symbol(found.message.symbol, self._known, place)
        return found._replace(time_ns=now_ns)


def load_function(name: str) -> OnBar:
    """Return the function `package.module:function`; the current directory is searched as well.

    Raises:
        ConfigurationException: it cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    folder = os.getcwd()  # noqa: PTH109 sys.path holds text
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        rule = f"{name} must be importable, was refused with {type(error).__name__}: {_short(error)}"
        raise ConfigurationException("command line", "--strategy", rule) from error
    if not callable(found):
        rule = f"{name} must be a function on_bar(history), was {type(found).__name__}"
        raise ConfigurationException("command line", "--strategy", rule)
    on_bar: OnBar = found
    return on_bar


# -- several at once, and what they share ------------------------------------------------------------------------------
class Together:
    """Several sources side by side; at one time they send in their order."""

    def __init__(self, sources: Sequence[SignalSource]) -> None:
        self._sources = sources

    def names(self) -> Sequence[str]:
        """Return the strategies of all sources."""
        return tuple(dict.fromkeys(name for source in self._sources for name in source.names()))

    def candles(self, ended: Sequence[tuple[str, Candle]], end_ns: int) -> None:
        """Pass the candles on."""
        for source in self._sources:
            source.candles(ended, end_ns)

    def between(self, after_ns: int, until_ns: int) -> Iterator[SentSignal]:
        """Yield the signals of all sources."""
        found = [signal for source in self._sources for signal in source.between(after_ns, until_ns)]
        yield from sorted(found, key=lambda each: each.time_ns)


def decoded(fields: Mapping[str, Any], place: str) -> SentSignal:
    """Return a signal from its fields, sent one second after its time.

    Raises:
        InvalidSignalException: place, field, rule and value.
    """
    try:
        value = orjson.dumps({name: plain(each) for name, each in fields.items() if each is not None})
    except TypeError as error:
        raise InvalidSignalException("wrong_type", "", f"{place}: must hold plain values: {error}") from error
    try:
        message = wire.decode(TacticalSignal, value, place=place)
    except InvalidMessage as error:
        raise InvalidSignalException(error.code, error.field, error.text) from error
    return SentSignal(message.timestamp_ns + REACTION_NS, message, value)


def plain(value: Any) -> Any:
    """Return a number of numpy or pandas as a number of Python, everything else as it is."""
    item = getattr(value, "item", None)
    found = item() if callable(item) and not isinstance(value, type) else value
    return "NaN" if isinstance(found, float) and not isfinite(found) else found


def check_symbol(symbol: str, known: Iterable[str], place: str) -> None:
    """Refuse a signal for a symbol without candles. Raises: InvalidSignalException."""
    if symbol not in known:
        text = f"{place}: symbol: must have candles, which only {', '.join(sorted(known))} have, was {symbol!r}"
        raise InvalidSignalException("inconsistent", "symbol", text)


def _at(time_ns: int) -> str:
    return instant(time_ns - time_ns % SECOND_NS)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:NAMED_VALUE_CHARS]

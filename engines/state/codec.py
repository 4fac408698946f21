"""Records to bytes and back: a record is a JSON array of its fields, and floats come back to the bit."""

from collections.abc import Callable
from typing import Any

import orjson

from engines.models.bars import Bars
from engines.models.calibration import Pool, Posterior
from engines.models.cascade import Latch
from engines.models.conformal import Scores
from engines.models.ensemble import Drift, ForecastCorrelation
from engines.models.policy_gate import Gate
from engines.models.regime import RegimeState
from engines.state.records import (
    Book,
    CappedCell,
    CellPosterior,
    CellRecord,
    CellTarget,
    Claim,
    Forecast,
    Market,
    PolicyQuestion,
    Questions,
    ScopeOverrides,
    Strategies,
    Suspect,
)


def encode_key(key: tuple[str, ...]) -> bytes:
    """Return a record's key as the bytes it has in a checkpoint table; ids do not contain `|`."""
    return "|".join(key).encode()


def decode_key(name: bytes) -> tuple[str, ...]:
    """Return the key that `encode_key` wrote."""
    return tuple(name.decode().split("|"))


def encode(record: tuple[Any, ...]) -> bytes:
    """Return a record as JSON bytes, copied: those that orjson returns keep its buffer of 4 KiB alive."""
    return bytes(memoryview(orjson.dumps(record, default=tuple)))


def decode(table: str, value: bytes) -> Any:
    """Return the record of a table that `encode` wrote."""
    return _DECODERS[table](_deep(orjson.loads(value)))


def _deep(value: Any) -> Any:
    """Return JSON arrays as tuples, at every depth."""
    return tuple(map(_deep, value)) if isinstance(value, list) else value


def _cell(row: tuple[Any, ...]) -> CellRecord:
    forecast, claims, *rest = row
    return CellRecord(forecast and Forecast(*forecast), tuple(Claim(*claim) for claim in claims), *rest)


def _learned(row: tuple[Any, ...]) -> CellPosterior:
    posterior, spans = row
    return CellPosterior(Posterior(*posterior), spans)


def _market(row: tuple[Any, ...]) -> Market:
    bars, gauges, long, short, *rest = row
    market = Market(bars and Bars(*bars), gauges, long and Latch(*long), short and Latch(*short), *rest)
    return market if market.suspect is None else market._replace(suspect=Suspect(*market.suspect))


def _strategies(row: tuple[Any, ...]) -> Strategies:
    names, weights, references, heard_ns, forecasts, drift = row
    return Strategies(
        names, weights, references, heard_ns, forecasts and ForecastCorrelation(*forecasts), Drift(*drift)
    )


def _questions(row: tuple[Any, ...]) -> Questions:
    book, asked, awaited = row
    return Questions(tuple(CappedCell(*kept) for kept in book), tuple(PolicyQuestion(*each) for each in asked), awaited)


_DECODERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "kelly-posteriors": _learned,
    "pools": Pool._make,
    "conformal-scores": Scores._make,
    "predictions": _cell,
    "markets": _market,
    "regimes": RegimeState._make,
    "strategies": _strategies,
    "books": Book._make,
    "targets": CellTarget._make,
    "states": ScopeOverrides._make,
    "questions": _questions,
    "gates": Gate._make,
}

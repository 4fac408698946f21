"""Migration of the state of decision version 3 to that of version 4. Released, so it never changes.

It reads and writes the JSON rows of the tables, not this package's records, which later versions change. What version 4
knows and version 3 did not is taken as the cautious reading of what was known: no evidence of a policy, no price of a
claim, no report of positions after the handover yet.

Source: docs/decisions/0036-takeover-of-version-3.md.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

__all__ = ["migrate"]

Row = list[Any]
Meta = dict[str, Any]
Rows = dict[tuple[str, bytes], bytes]

CHANGED: Final = ("kelly-posteriors", "predictions", "targets", "books", "questions", "gates")
"""Tables whose rows differ between the versions."""
OLD_DEFAULTS: Final[Mapping[str, float]] = {
    "effective_outcomes": 400.0,
    "min_edge": 0.02,
    "min_win_rate": 0.45,
    "prior_calibration": 0.5,
    "winsor_sd": 6.0,
}
"""Settings of `position_sizing.bayesian_kelly` by version 3's default; a setting still at it gets version 4's."""
MAX_CLAIM: Final = 1.0
"""Largest claim that version 4 believes, in claimed volatilities."""
SHORT_MEMORY: Final = 150.0
"""Memory of version 4's guard, in outcomes."""
NO_EVIDENCE: Final = (0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
"""A gate after its status, before any window."""


def migrate(meta: Meta, records: Rows) -> tuple[Meta, Rows]:
    """Return meta and records of version 4 for those that version 3 left.

    Args:
        meta: settings, journal time and position of the partition.
        records: (table, key) → JSON row.
    """
    settings, now_ns = meta["settings"], meta["now_ns"]
    kelly, costs = settings["position_sizing"]["bayesian_kelly"], settings["position_sizing"]["costs"]
    trading = 2.0 * (costs["fee_ratio"] + costs["slippage_ratio"])
    rows: dict[str, dict[bytes, Row]] = {table: {} for table in CHANGED}
    for (table, key), value in records.items():
        if table in rows:
            rows[table][key] = orjson.loads(value)
    books, managed = rows["books"], _managed(rows)
    posteriors = {key: [_without_prior(data, kelly), spans] for key, (data, spans) in rows["kelly-posteriors"].items()}
    changed = {
        "kelly-posteriors": posteriors,
        "pools": _pools(posteriors),
        "predictions": {key: _cell(row, trading) for key, row in rows["predictions"].items()},
        "targets": {key: [*row, _share(row[0], books.get(key.split(b"|")[0]))] for key, row in rows["targets"].items()},
        "books": {key: _book(row, now_ns, managed.get(key, [])) for key, row in books.items()},
        "questions": {key: _questions(row) for key, row in rows["questions"].items()},
        "gates": {key: _gate(row) for key, row in rows["gates"].items()},
    }
    after = {(table, key): orjson.dumps(row) for table, found in changed.items() for key, row in found.items()}
    return meta | {"settings": _settings(settings)}, records | after


def _book(row: Row, now_ns: int, managed: Row) -> Row:
    """Return a book whose newest change is the handover, without the reductions that version 3 kept in it."""
    return [*row[:7], None, row[2], now_ns, managed, [], [], False, 0.0, 0.0, 0, 0, row[2], False]


def _questions(row: Row) -> Row:
    """Return questions without whether a cell of their book was held down by a cut."""
    book, asked, awaited = row
    return [[kept[:5] for kept in book], asked, awaited]


def _gate(row: Row) -> Row:
    """Return a gate without evidence, closed if it was closed: version 3 tested decisions, version 4 tests windows."""
    status = "closed" if row[0] == "closed" else "collecting"
    return [status, *NO_EVIDENCE]


def _settings(settings: Meta) -> Meta:
    """Return the settings in force with version 4's defaults where they were version 3's."""
    sizing = settings["position_sizing"]
    kept = {name: value for name, value in sizing["bayesian_kelly"].items() if OLD_DEFAULTS.get(name) != value}
    return settings | {"position_sizing": sizing | {"bayesian_kelly": kept}}


def _without_prior(posterior: Row, kelly: Mapping[str, float]) -> Row:
    """Return the data of a posterior that held its prior, and the short memory that they would have left.

    The prior's weight is taken at the cell's typical claim now; what is left is bounded by what so many outcomes
    of believed claims can say, so that a slipped claim of the past does not weigh for good.
    """
    h1, h2, h3, h4, square, wins, losses, outcomes = posterior
    weight, slope = kelly["prior_strength"] * square, kelly["prior_calibration"]
    spread = 2.0 * kelly["prior_variance"] * (kelly["prior_shape"] - 1.0)
    remembered = max(0.0, h3 - 2.0 * kelly["prior_shape"])
    data = max(0.0, h1 - weight)
    product = h2 - weight * slope if data > 0.0 else 0.0
    bounded = min(data, remembered * MAX_CLAIM * MAX_CLAIM)
    if bounded < data:
        product *= bounded / data
    squares = max(0.0, h4 - spread - weight * slope * slope, product * product / bounded if bounded > 0.0 else 0.0)
    short = min(1.0, SHORT_MEMORY / kelly["effective_outcomes"])
    return [
        bounded,
        product,
        remembered,
        squares,
        min(square, MAX_CLAIM * MAX_CLAIM),
        max(0.0, wins - kelly["win_prior"]),
        max(0.0, losses - kelly["win_prior"]),
        outcomes,
        short * bounded,
        short * product,
    ]


def _pools(posteriors: Mapping[bytes, Row]) -> dict[bytes, Row]:
    """Return the sums of what the symbols of each strategy taught, in the order of their keys."""
    sums: dict[bytes, Row] = {}
    for key, (data, _) in sorted(posteriors.items()):
        strategy = key.rsplit(b"|", 1)[0]
        h1, h2, cells = sums.get(strategy, [0.0, 0.0, 0])
        sums[strategy] = [h1 + data[0], h2 + data[1], cells + 1]
    return sums


def _cell(row: Row, trading: float) -> Row:
    """Return a cell whose forecast says what part of its costs is trading, and whose claims know no price."""
    forecast, claims, last_ns, seen = row
    side, side_ns = (0, 0) if forecast is None else (forecast[3], forecast[1])
    wider = None if forecast is None else [*forecast, trading if forecast[7] else 0.0, 0.0]
    priceless = [[*claim, 0, None, 0.0] for claim in claims]
    return [wider, priceless, last_ns, seen, 1.0, 1.0, side, side_ns, 0, False]


def _share(cents: int, book: Row | None) -> float:
    """Return a target as a share of its book's value: the fraction that it came from, as far as is known."""
    value_usd = 0.0 if book is None else book[0]
    return cents / (100.0 * value_usd) if value_usd > 0.0 else 0.0


def _managed(rows: Mapping[str, Mapping[bytes, Row]]) -> dict[bytes, Row]:
    """Return, by portfolio, the symbols with a target that is not 0, or whose position was being closed."""
    found: dict[bytes, set[str]] = {}
    for key, row in rows["targets"].items():
        if row[0] or row[1]:
            portfolio, _, symbol = key.split(b"|")
            found.setdefault(portfolio, set()).add(symbol.decode())
    for portfolio, row in rows["books"].items():
        if len(row) > 7:
            found.setdefault(portfolio, set()).update(symbol for symbol, _ in row[7])
    return {portfolio: sorted(symbols) for portfolio, symbols in found.items()}

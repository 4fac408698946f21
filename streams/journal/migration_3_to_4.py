"""Migration of the state of decision version 3 to that of version 4. Released, so it never changes.

It reads and writes the JSON rows of the tables, not this package's records, which later versions change. What version 4
knows and version 3 did not is taken as the cautious reading of what was known: no evidence of a policy, no price of a
claim, no report of positions after the handover yet.

Source: docs/decisions/0036-takeover-of-version-3.md.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

__all__ = ["migrate"]

Row = list[Any]
Meta = dict[str, Any]
Rows = dict[tuple[str, bytes], bytes]

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
    after = dict(records)
    rows = {place: orjson.loads(value) for place, value in records.items() if place[0] in _TABLES}
    kelly, costs = settings["position_sizing"]["bayesian_kelly"], settings["position_sizing"]["costs"]
    trading = 2.0 * (costs["fee_ratio"] + costs["slippage_ratio"])
    values = {key: row[0] for (table, key), row in rows.items() if table == "books"}
    managed = _managed(rows)
    for (table, key), row in rows.items():
        changed = _TABLES[table](row)
        if table == "kelly-posteriors":
            changed[0] = _without_prior(changed[0], kelly)
        elif table == "predictions":
            changed = _cell(changed, trading)
        elif table == "targets":
            changed = [*changed, _share(changed[0], values.get(key.split(b"|")[0], 0.0))]
        elif table == "books":
            changed = [*changed, None, changed[2], now_ns, managed.get(key, []), [], [], False, 0.0, 0.0, 0]
        after[table, key] = orjson.dumps(changed)
    after |= _pools({key: orjson.loads(after[table, key])[0] for table, key in rows if table == "kelly-posteriors"})
    return meta | {"settings": _settings(settings)}, after


def _book(row: Row) -> Row:
    """Return a book without the reductions that decisions by ratio of version 3 were not to undo."""
    return row[:7]


def _questions(row: Row) -> Row:
    """Return questions without whether a cell of their book was held down by a cut."""
    book, asked, awaited = row
    return [[kept[:5] for kept in book], asked, awaited]


def _gate(row: Row) -> Row:
    """Return a gate without evidence, closed if it was closed: version 3 tested decisions, version 4 tests windows."""
    status = "closed" if row[0] == "closed" else "collecting"
    return [status, *NO_EVIDENCE]


def _unchanged(row: Row) -> Row:
    return row


_TABLES: Final[Mapping[str, Callable[[Row], Row]]] = {
    "kelly-posteriors": _unchanged,
    "predictions": _unchanged,
    "targets": _unchanged,
    "books": _book,
    "questions": _questions,
    "gates": _gate,
}
"""Table → its row without what version 4 has no use for; the other tables are the same in both versions."""


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


def _pools(posteriors: Mapping[bytes, Row]) -> Rows:
    """Return the sums of what the symbols of each strategy taught, in the order of their keys."""
    sums: dict[bytes, Row] = {}
    for key, data in sorted(posteriors.items()):
        strategy = key.rsplit(b"|", 1)[0]
        h1, h2, cells = sums.get(strategy, [0.0, 0.0, 0])
        sums[strategy] = [h1 + data[0], h2 + data[1], cells + 1]
    return {("pools", key): orjson.dumps(row) for key, row in sums.items()}


def _cell(row: Row, trading: float) -> Row:
    """Return a cell whose forecast says what part of its costs is trading, and whose claims know no price."""
    forecast, claims, last_ns, seen = row
    side, side_ns = (0, 0) if forecast is None else (forecast[3], forecast[1])
    wider = None if forecast is None else [*forecast, trading if forecast[7] else 0.0, 0.0]
    priceless = [[*claim, 0, None, 0.0] for claim in claims]
    return [wider, priceless, last_ns, seen, 1.0, 1.0, side, side_ns]


def _share(cents: int, value_usd: float) -> float:
    """Return a target as a share of the value: the fraction that it came from, as far as is known."""
    return cents / (100.0 * value_usd) if value_usd > 0.0 else 0.0


def _managed(rows: Mapping[tuple[str, bytes], Row]) -> dict[bytes, Row]:
    """Return, by portfolio, the symbols with a target that is not 0, or whose position was being closed."""
    found: dict[bytes, set[str]] = {}
    for (table, key), row in rows.items():
        if table == "targets" and (row[0] or row[1]):
            portfolio, _, symbol = key.split(b"|")
            found.setdefault(portfolio, set()).add(symbol.decode())
        elif table == "books" and len(row) > 7:
            found.setdefault(key, set()).update(symbol for symbol, _ in row[7])
    return {portfolio: sorted(symbols) for portfolio, symbols in found.items()}

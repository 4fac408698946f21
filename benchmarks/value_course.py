"""One course of the value test: strategies with a planted edge trade real candles, sized by the code in a folder.

A script, not a module of the package: `value.py` runs it with `python -I`, so that decision version 3 and this version,
whose modules have other names, take the same course. Reads one job a line (JSON, see `run`), writes one result a line.
Needs of the code: a sizing fold and the journal's entries.

The course, hour by hour at the candle's end: the step with the prices, the outcomes that are due, the new claims. Each
strategy claims every 12 hours for the next 12, x = conf·e/s of .12, s from an EWMA(.99) of squared hourly returns. Its
side is the sign of a noisy forecast of the return that really comes, with as much noise as makes E[side·r/s], over all
its claims, the edge that is planted. Targets are filled at the next candle's open, for a fee a side. V stays at 100,000
USD: P&L, largest drawdown and turnover are shares of it. Positions are not reported. All strategies of a seed trade in
one journal, each in a portfolio of its own; `mixed` has four of them in one.
"""

import csv
import gzip
import importlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOUR_NS = 3600 * 10**9
PERIOD, WARM_UP, MOMENTUM_HOURS = 12, 168, 24
CLAIM, FEE, CONFIDENCE = 0.12, 0.0005, 0.8
VALUE_USD = 100_000.0
KELLY_FRACTION, CELL_CAP, STRATEGY_CAP, BOOK_CAP = 0.25, 0.15, 0.40, 0.80
"""Of naive Kelly: those of the default settings."""


class Strategy(NamedTuple):
    """How a strategy claims."""

    claim: float
    """x, what it claims in volatilities."""
    edge: float | None
    """E[side·r/s]; None: its side does not come from a forecast."""


STRATEGIES = {
    "honest": Strategy(CLAIM, CLAIM),
    "overclaiming": Strategy(2 * CLAIM, CLAIM),
    "half true": Strategy(CLAIM, CLAIM / 2),
    "noise": Strategy(CLAIM, 0.0),
    "harmful": Strategy(CLAIM, -CLAIM),
    "long": Strategy(CLAIM, None),
    "momentum": Strategy(CLAIM, None),
}
BOOKS = {**{name: (name,) for name in STRATEGIES}, "mixed": ("honest", "noise", "harmful", "long")}
"""Portfolio → its strategies."""
MODULES = {
    "SizingFold": ("streams.stages.sizing", "streams.sizing"),
    "Stored": ("streams.processing.memory_cluster", "streams.memory"),
    "DECISION_VERSION": ("engines.allocation",),
    "tree_hash": ("engines.parameters",),
    "entry": ("streams.journal.entries", "streams.journal"),
    "internal": ("streams.journal.entries", "streams.journal"),
    "SourcePlace": ("streams.journal.entries", "streams.journal"),
    "DecisionParams": ("engines.parameters",),
}
"""Name → modules that have it, of the newest version first."""
FORMER = {"SourcePlace": "Place"}


class Candles(NamedTuple):
    """Hourly candles of one coin, oldest first."""

    end_ns: NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    """In coins."""


class Claims(NamedTuple):
    """What one strategy claims of one coin: (claims,)."""

    hour: NDArray[np.int64]
    """Index of the candle at whose end each is made."""
    side: NDArray[np.int64]
    volatility: Floats
    realised: Floats
    """Return over the horizon."""


# -- data --------------------------------------------------------------------------------------------------------------
def candles(folder: Path, coin: str) -> Candles:
    """Return a coin's candles; the files have the newest row first."""
    with gzip.open(folder / f"{coin}USDT_1h_2020-08_2022-06.csv.gz", "rt") as file:
        rows = sorted(
            [int(row["unix"]), *(float(row[name]) for name in ("open", "high", "low", "close", f"Volume {coin}"))]
            for row in csv.DictReader(file)
        )
    starts, *columns = zip(*rows, strict=True)
    return Candles(np.array(starts) * 1_000_000 + HOUR_NS, *(np.array(column) for column in columns))


def volatilities(close: Floats, decay: float = 0.99) -> Floats:
    """Return the volatility over the horizon as it is known at each candle's end, from an EWMA of squared returns."""
    squares = np.diff(np.log(close), prepend=np.log(close[0])) ** 2
    variance, found = float(squares[1:25].mean()), []
    for square in squares:
        variance = decay * variance + (1.0 - decay) * float(square)
        found.append(math.sqrt(PERIOD * variance))
    return np.array(found)


# -- claims ------------------------------------------------------------------------------------------------------------
def claims(of: Candles, name: str, seed: int, chance: np.random.Generator) -> Claims:
    """Return a strategy's claims; seeds also differ in the hour of the day at which it makes them."""
    volatility = volatilities(of.close)
    hour = np.arange(WARM_UP + seed % PERIOD, len(of.close) - PERIOD - 1, PERIOD)
    realised = of.close[hour + PERIOD] / of.close[hour] - 1.0
    edge = STRATEGIES[name].edge
    if edge is not None:
        side = planted(realised / volatility[hour], edge, chance)
    elif name == "long":
        side = np.ones(len(hour), dtype=np.int64)
    else:
        side = np.where(of.close[hour] >= of.close[hour - MOMENTUM_HOURS], 1, -1)
    return Claims(hour, side, volatility[hour], realised)


def planted(z: Floats, edge: float, chance: np.random.Generator) -> NDArray[np.int64]:
    """Return the signs of noisy forecasts a·z + ε of what comes, with E[side·z] = `edge` over all of them."""
    clarity = math.copysign(_clarity(z, abs(edge)), edge)
    return np.where(clarity * z + chance.normal(size=len(z)) >= 0.0, 1, -1)


def _clarity(z: Floats, edge: float) -> float:
    """Return a ≥ 0 with mean z·(2Φ(a·z) − 1) = `edge`, by bisection: the mean grows with a."""

    def mean(a: float) -> float:
        return math.fsum(each * math.erf(a * each / math.sqrt(2.0)) for each in z.tolist()) / len(z)

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if mean(middle) < edge else (low, middle)
    return low


# -- what came out -----------------------------------------------------------------------------------------------------
class Account:
    """Fills targets at the opens of candles and keeps P&L, its largest fall, and what was traded, in shares of V."""

    def __init__(self) -> None:
        self.held: dict[str, float] = {}
        self.cash = self.peak = self.fall = self.traded = 0.0

    def fill(self, targets: dict[str, float], opens: dict[str, float]) -> None:
        """Trade to targets, in coins."""
        for symbol, quantity in targets.items():
            change = quantity - self.held.get(symbol, 0.0)
            usd = change * opens[symbol] / VALUE_USD
            self.cash -= usd + FEE * abs(usd)
            self.traded += abs(usd)
            self.held[symbol] = quantity

    def mark(self, closes: dict[str, float]) -> None:
        """Take the prices at a candle's end."""
        self.peak = max(self.peak, self.profit(closes))
        self.fall = max(self.fall, self.peak - self.profit(closes))

    def profit(self, closes: dict[str, float]) -> float:
        return self.cash + sum(quantity * closes[symbol] for symbol, quantity in self.held.items()) / VALUE_USD

    def result(self, closes: dict[str, float]) -> dict[str, float]:
        return {"profit": self.profit(closes), "drawdown": self.fall, "turnover": self.traded}


def naive(wanted: dict[tuple[str, str], float]) -> dict[str, float]:
    """Return each coin's share of V: kf·x/s of each claim, taken at its word, within the caps of the settings."""
    sizes = {cell: max(-CELL_CAP, min(CELL_CAP, KELLY_FRACTION * size)) for cell, size in wanted.items()}
    for part, cap in ((1, CELL_CAP), (0, STRATEGY_CAP), (None, BOOK_CAP)):
        gross: dict[str, float] = {}
        for cell, size in sizes.items():
            name = "" if part is None else cell[part]
            gross[name] = gross.get(name, 0.0) + abs(size)
        for cell in sizes:
            total = gross["" if part is None else cell[part]]
            sizes[cell] *= min(1.0, cap / total) if total else 1.0
    nets: dict[str, float] = {}
    for (_, symbol), size in sizes.items():
        nets[symbol] = nets.get(symbol, 0.0) + size
    return nets


# -- the course --------------------------------------------------------------------------------------------------------
class Course:
    """All books of one seed, side by side, on some coins."""

    def __init__(self, market: dict[str, Candles], seed: int, books: Sequence[str] = tuple(BOOKS)) -> None:
        self.market = {f"{coin}-USD": of for coin, of in market.items()}
        first = next(iter(self.market.values()))
        if any(not np.array_equal(of.end_ns, first.end_ns) for of in self.market.values()):
            raise ValueError("candles must be of the same hours for every coin")
        self.end_ns = first.end_ns
        self.books = tuple(books)
        self.claimed: dict[int, list[tuple[str, str, str, int, int]]] = {}
        """Hour → (book, strategy, symbol, side, number)."""
        self.claims: dict[tuple[str, str], Claims] = {}
        for symbol, of in self.market.items():
            for place, name in enumerate(STRATEGIES):
                chance = np.random.default_rng([seed, place, *symbol.encode()])
                self.claims[name, symbol] = claims(of, name, seed, chance)
        for book in self.books:
            for name in BOOKS[book]:
                for symbol in self.market:
                    made = self.claims[name, symbol]
                    for number, (hour, side) in enumerate(zip(made.hour.tolist(), made.side.tolist(), strict=True)):
                        self.claimed.setdefault(hour, []).append((book, name, symbol, side, number))

    def prices(self, hour: int, column: str) -> dict[str, float]:
        return {symbol: float(getattr(of, column)[hour]) for symbol, of in self.market.items()}

    def slopes(self) -> dict[str, float]:
        """Return b of each strategy as it came out: mean side·r/s over the claim."""
        return {
            name: float(np.mean(np.concatenate([made.side * made.realised / made.volatility for made in of])))
            / STRATEGIES[name].claim
            for name in STRATEGIES
            for of in [[self.claims[name, symbol] for symbol in self.market]]
        }

    def messages(self, hour: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the outcomes and the signals of an hour's end."""
        now_ns = int(self.end_ns[hour])
        for book, name, symbol, _, number in self.claimed.get(hour - PERIOD, ()):
            cell = {"portfolio_id": _id(book), "strategy_id": _id(name), "symbol": symbol}
            yield (
                "outcome",
                {
                    **cell,
                    "signal_id": f"{name}-{number}",
                    "timestamp_ns": now_ns,
                    "realized_return": float(self.claims[name, symbol].realised[number]),
                },
            )
        for book, name, symbol, side, number in self.claimed.get(hour, ()):
            volatility = float(self.claims[name, symbol].volatility[number])
            cell = {"portfolio_id": _id(book), "strategy_id": _id(name), "symbol": symbol}
            yield (
                "signal",
                {
                    **cell,
                    "signal_id": f"{name}-{number}",
                    "action": "buy" if side > 0 else "sell",
                    "confidence": CONFIDENCE,
                    "risk_score": 0.0,
                    "regime": "ranging",
                    "timestamp_ns": now_ns,
                    "horizon_s": PERIOD * 3600,
                    "expected_return": side * STRATEGIES[name].claim * volatility / CONFIDENCE,
                    "predicted_volatility": volatility,
                },
            )

    def naive(self, hours: int) -> dict[str, dict[str, float]]:
        """Return what naive Kelly makes of each book."""
        found = {}
        for book in self.books:
            account, targets = Account(), dict[str, float]()
            wanted: dict[tuple[str, str], float] = {}
            for hour in range(hours):
                account.fill(targets, self.prices(hour, "open"))
                closes = self.prices(hour, "close")
                account.mark(closes)
                mine = [each for each in self.claimed.get(hour, ()) if each[0] == book]
                for _, name, symbol, side, number in mine:
                    volatility = self.claims[name, symbol].volatility[number]
                    wanted[name, symbol] = side * STRATEGIES[name].claim / float(volatility)
                targets = {}
                if mine:
                    targets = {symbol: size * VALUE_USD / closes[symbol] for symbol, size in naive(wanted).items()}
            found[book] = account.result(closes)
        return found

    def sized(self, hours: int, code: "Code") -> tuple[dict[str, dict[str, float]], dict[str, int]]:
        """Return what the code's sizes make of each book, and how many of each kind of record it published."""
        accounts = {_id(book): Account() for book in self.books}
        pending: dict[str, dict[str, float]] = {name: {} for name in accounts}
        counts: dict[str, int] = {}
        for hour in range(hours):
            opens, closes = self.prices(hour, "open"), self.prices(hour, "close")
            for name, account in accounts.items():
                account.fill(pending[name], opens)
                account.mark(closes)
                pending[name] = {}
            now_ns = int(self.end_ns[hour])
            rows = {symbol: [float(column[hour]) for column in of[1:]] + [1] for symbol, of in self.market.items()}
            for topic, value in code.step(now_ns, rows) + [
                send for kind, body in self.messages(hour) for send in code.message(kind, body, now_ns)
            ]:
                counts[topic] = counts.get(topic, 0) + 1
                if topic == "allocations":
                    fields = json.loads(value)
                    pending[fields["portfolio_id"]].update(
                        {symbol: target["quantity"] for symbol, target in fields["targets"].items()}
                    )
        return {book: accounts[_id(book)].result(closes) for book in self.books}, counts


def _id(name: str) -> str:
    return name.replace(" ", "-")


# -- the code under test -----------------------------------------------------------------------------------------------
class Code:
    """The sizing fold of one version, fed with journal entries."""

    def __init__(self) -> None:
        self.named = {name: _find(name) for name in MODULES}
        self.fold = self.named["SizingFold"](0)
        self.offsets: dict[str, int] = {}
        self.offset = 0

    def begin(self, now_ns: int, changes: dict[str, Any]) -> None:
        """Fold Genesis with the default settings, and changes to them by dotted key."""
        params = self.named["DecisionParams"]
        tree = params().model_dump()
        for key, value in changes.items():
            *path, name = key.split(".")
            section = tree
            for part in path:
                section = section[part]
            if name not in section:
                raise KeyError(f"{key}: no such setting of the code")
            section[name] = value
        body = {
            "decision_version": self.named["DECISION_VERSION"],
            "journal_id": "VALUETST",
            "partitions": 1,
            "settings": tree,
            "settings_hash": self.named["tree_hash"](params.model_validate(tree)),
        }
        self._fold(self.named["internal"]("genesis", body, now_ns))

    def step(self, now_ns: int, rows: dict[str, list[float]]) -> list[tuple[str, bytes]]:
        """Fold one hour's candles as one step."""
        body = {"source_partition": 0, "step": now_ns // 10**9 - 1, "step_s": 1, "symbols": rows}
        return self._fold(self.named["internal"]("step", body, now_ns))

    def message(self, kind: str, body: dict[str, Any], now_ns: int) -> list[tuple[str, bytes]]:
        """Fold a message as ingest journals it."""
        topic = f"{kind}s"
        offset = self.offsets[topic] = self.offsets.get(topic, -1) + 1
        place = self.named["SourcePlace"](topic, 0, 0, offset)
        return self._fold(
            self.named["entry"](kind, json.dumps(body), now_ns, event_time_ns=body["timestamp_ns"], place=place)
        )

    def _fold(self, value: bytes) -> list[tuple[str, bytes]]:
        sends = self.fold.fold(self.named["Stored"](self.offset, None, value))
        self.offset += 1
        self.fold.touched.clear()
        return [(send.topic, send.value or b"") for send in sends]


def _find(name: str) -> Any:
    """Return what a version calls by a name, or called so formerly."""
    for module in MODULES[name]:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for each in (name, FORMER.get(name, name)):
            if hasattr(found, each):
                return getattr(found, each)
    raise ModuleNotFoundError(f"no {name} in any of {MODULES[name]}: the code is of no version that is known here")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return one job's results.

    A job has `data`, the folder of the candles, `coins`, `seed`, `hours` (the first so many; 0: all) and `settings`
    (changes to the defaults by dotted key).
    """
    began = perf_counter()
    market = {coin: candles(Path(job["data"]), coin) for coin in job["coins"]}
    course = Course(market, job["seed"])
    hours = job["hours"] or len(course.end_ns)
    code = Code()
    code.begin(int(course.end_ns[0]) - HOUR_NS, job["settings"])
    sized, counts = course.sized(hours, code)
    return {
        "coins": job["coins"],
        "seed": job["seed"],
        "sized": sized,
        "naive": course.naive(hours),
        "slopes": course.slopes(),
        "records": counts,
        "seconds": perf_counter() - began,
    }


def main() -> None:
    """Take jobs from stdin until it ends; the one argument is the folder of the code."""
    os.nice(10)
    sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in getattr(each, "__module__", "")]
    sys.path.insert(0, sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

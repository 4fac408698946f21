"""Made markets for backtests: random walks as candles, as signals and as files."""

import math
import random
from itertools import pairwise
from pathlib import Path

from config.settings import Settings
from streams.history.candles import Candle, CandleFile, Candles

HOUR_S = 3_600
SECOND_NS = 1_000_000_000
HOUR_NS = HOUR_S * SECOND_NS
START_NS = 1_600_000_000 * SECOND_NS - 1_600_000_000 * SECOND_NS % (24 * HOUR_NS)


def walk(symbol="BTC-USD", hours=300, seed=1, width_s=HOUR_S, drift=0.0, sd=0.01):
    """Return candles of a random walk."""
    chance, price, rows = random.Random(f"{symbol}{seed}"), 100.0, []
    for number in range(hours):
        close = price * math.exp(chance.gauss(drift, sd))
        high, low = max(price, close) * 1.001, min(price, close) * 0.999
        open_ns = START_NS + number * width_s * SECOND_NS
        rows.append(Candle(open_ns, price, high, low, close, 10.0 + chance.random()))
        price = close
    return of_rows(symbol, rows, width_s)


def of_rows(symbol, rows, width_s=HOUR_S):
    """Return candles with these rows."""
    return Candles(symbol, width_s, list(rows), CandleFile(len(rows), 0, 0))


def of_prices(symbol, prices, width_s=HOUR_S):
    """Return candles that open at each price and close at the next one."""
    pairs = pairwise(prices)
    return of_rows(
        symbol,
        [
            Candle(START_NS + number * width_s * SECOND_NS, a, max(a, b), min(a, b), b, 10.0)
            for number, (a, b) in enumerate(pairs)
        ],
        width_s,
    )


def written(folder, candles, name=None):
    """Write candles as a CSV file; return its path."""
    lines = ["timestamp,open,high,low,close,volume"]
    lines += [
        f"{row.open_ns // 1_000_000},{row.open!r},{row.high!r},{row.low!r},{row.close!r},{row.volume_coins!r}"
        for row in candles.rows
    ]
    path = Path(folder) / (name or f"{candles.symbol}.csv")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def said(hour, symbol="BTC-USD", **given):
    """Return a signal sent at the end of an hour's candle, counted from 1."""
    return {
        "strategy_id": "mine",
        "symbol": symbol,
        "action": "buy",
        "confidence": 0.8,
        "risk_score": 0.1,
        "regime": "ranging",
        "timestamp_ns": START_NS + hour * HOUR_NS,
        "expected_return": 0.02,
        "predicted_volatility": 0.03,
        "horizon_s": 6.0 * HOUR_S,
        **given,
    }


def settings(**sections):
    """Return settings that size a first claim."""
    kelly = {
        "first_claim": 0.16,
        "max_claim": 10.0,
        "max_usual_claims": 100.0,
        "max_prior_weight": 1e6,
        "prior_calibration": 0.5,
        "min_edge": 0.02,
    }
    return Settings.model_validate({"position_sizing": {"bayesian_kelly": kelly}, **sections})

"""A book of bars whose every number is printed as hex, to be the same whatever runs the loops."""

import hashlib
import json
from pathlib import Path

import numpy as np

from engines.models import correlation, moments
from engines.parameters import CorrelationParams

HOUR_NS = 3_600 * 10**9


def bits():
    """Return digests of all that comes of 150 bars of 9 symbols: gaps, a late symbol, one that goes, flat and wild."""
    chance = np.random.RandomState(7)
    params = CorrelationParams(inactive_after_s=20 * 3_600, decay=0.96)
    state = moments.begin()
    found = {"raw": [], "shrunk": [], "stressed": [], "alerts": [], "diversification": [], "raises": []}
    for k in range(150):
        common = chance.standard_normal()
        row = {f"S{i}": 0.01 * (0.95 * common + 0.3 * chance.standard_normal()) for i in range(9)}
        row["S0"] = 0.0
        row["S1"] *= 40.0 if k % 17 == 0 else 1.0
        here = {
            symbol: r
            for i, (symbol, r) in enumerate(row.items())
            if chance.uniform() > 0.15 and not (i == 2 and k < 60) and not (i == 3 and k > 80)
        }
        moments.observe(state, (k + 1) * HOUR_NS, here, params)
        matrix = correlation.raw(state, params)
        guarded = correlation.shrunk(state, params)
        n = len(state.symbols)
        spread = correlation.diversification(np.linspace(-1.0, 2.0, n), np.linspace(0.5, 1.5, n), guarded.matrix)
        found["raw"].append(matrix.tobytes().hex())
        found["shrunk"].append(guarded.matrix.tobytes().hex())
        found["stressed"].append(correlation.stressed(guarded.matrix, 0.37).tobytes().hex())
        found["alerts"].append(repr(correlation.alerts(state, matrix, params)))
        found["diversification"].append(repr(spread))
        found["raises"].append(guarded.raises)
    found["parts"] = [value.hex() for _, value in sorted(moments.to_parts(state).items())]
    return {name: hashlib.sha256(json.dumps(values).encode()).hexdigest() for name, values in found.items()}


if __name__ == "__main__":
    print(json.dumps(bits()))  # noqa: T201 (what the test reads)


SCRIPT = str(Path(__file__))

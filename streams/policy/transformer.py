"""A small transformer with seeded random weights, to test the policy path with something that behaves like a model.

It is UNTRAINED: its nudges are noise that depends smoothly on the state vector, and its confidence is meaningless.

Each number of the state vector becomes a token: its value times a random direction plus an embedding, as in the
feature tokenizer of Gorishniy et al. 2021. Two pre-norm layers with four attention heads follow, then four outputs.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.handlers.policy_request import FEATURES

Array = NDArray[np.float64]

WIDTH: Final = 32
HEADS: Final = 4
LAYERS: Final = 2
HIDDEN: Final = 64
DECIMALS: Final = 6
"""Answers are rounded to hide differences between CPUs in the last bits of matrix products."""
NUDGE_MAX: Final = 0.3


class Opinion(NamedTuple):
    """The transformer's output for one state vector."""

    nudge: float
    """In [-0.3, 0.3]."""
    confidence: float
    """In [0.5, 1]."""
    predicted_return: float
    predicted_volatility: float


class _Layer(NamedTuple):
    query: Array
    key: Array
    value: Array
    out: Array
    up: Array
    down: Array


class Transformer:
    """An untrained policy: a function of seed and state vector.

    >>> Transformer(1).opinion([0.5] * len(FEATURES)) == Transformer(1).opinion([0.5] * len(FEATURES))
    True
    """

    def __init__(self, seed: int = 0) -> None:
        """Draw the weights from `seed`."""
        rng = np.random.default_rng(seed)

        def drawn(rows: int, columns: int) -> Array:
            weights: Array = rng.standard_normal((rows, columns)) / np.sqrt(rows)
            return weights

        features = len(FEATURES)
        self.version = f"untrained-{seed}"
        self._direction = rng.standard_normal((features, WIDTH))
        self._embedding = rng.standard_normal((features, WIDTH))
        self._class_token = rng.standard_normal((1, WIDTH))
        self._layers = [
            _Layer(
                drawn(WIDTH, WIDTH),
                drawn(WIDTH, WIDTH),
                drawn(WIDTH, WIDTH),
                drawn(WIDTH, WIDTH),
                drawn(WIDTH, HIDDEN),
                drawn(HIDDEN, WIDTH),
            )
            for _ in range(LAYERS)
        ]
        self._answers = drawn(WIDTH, 4)

    def opinion(self, state: list[float]) -> Opinion:
        """Return the output for a state vector of `len(FEATURES)` numbers."""
        values = np.tanh(np.asarray(state, dtype=np.float64))
        tokens = np.vstack([self._class_token, values[:, None] * self._direction + self._embedding])
        for layer in self._layers:
            tokens = tokens + _attention(_normed(tokens), layer)
            tokens = tokens + _gelu(_normed(tokens) @ layer.up) @ layer.down
        nudge, sure, mean, wide = (float(each) for each in (_normed(tokens)[0] @ self._answers))
        return Opinion(
            round(NUDGE_MAX * float(np.tanh(nudge)), DECIMALS),
            round(0.5 + 0.5 / (1.0 + float(np.exp(-sure))), DECIMALS),
            round(0.01 * float(np.tanh(mean)), DECIMALS),
            round(0.01 + 0.01 / (1.0 + float(np.exp(-wide))), DECIMALS),
        )


def _attention(tokens: Array, layer: _Layer) -> Array:
    """Return the multi-head attention output; (tokens, WIDTH)."""
    query, key, value = (_split(tokens @ weights) for weights in (layer.query, layer.key, layer.value))
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
    taken: Array = mixed.transpose(1, 0, 2).reshape(len(tokens), WIDTH) @ layer.out
    return taken


def _split(tokens: Array) -> Array:
    """Return (HEADS, tokens, WIDTH / HEADS)."""
    return tokens.reshape(len(tokens), HEADS, WIDTH // HEADS).transpose(1, 0, 2)


def _normed(tokens: Array) -> Array:
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled


def _gelu(x: Array) -> Array:
    curved: Array = 0.5 * x * (1.0 + np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    return curved

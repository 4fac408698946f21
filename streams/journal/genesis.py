"""Genesis: the first entry of every journal partition."""

import hashlib
from base64 import b32encode
from secrets import token_bytes
from typing import Final

from engines.allocation import DECISION_VERSION
from engines.parameters import DecisionParams, tree_hash
from streams.journal import entries as journal

BACKTEST_ID: Final = "BACKTEST"
"""Journal id of every backtest: the same inputs give the same bytes, and no cluster holds the journal."""


def new_journal_id(seed: int | None = None) -> str:
    """Return 8 base32 characters: random, or derived from a seed for reproducible runs."""
    raw = token_bytes(5) if seed is None else hashlib.sha256(f"journal {seed}".encode()).digest()[:5]
    return b32encode(raw).decode()


def genesis(journal_id: str, partitions: int, params: DecisionParams, now_ns: int, version: int = 0) -> bytes:
    """Return entry 0 of every journal partition; `version`: decision version, 0: that of this code."""
    body = {
        "decision_version": version or DECISION_VERSION,
        "journal_id": journal_id,
        "partitions": partitions,
        "settings": params.model_dump(),
        "settings_hash": tree_hash(params),
    }
    return journal.internal("genesis", body, now_ns)

"""Readable diagnostics of a partition's state."""

from typing import Any

from engines.models import calibration
from engines.pipeline.sizing_modes import trading_states
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import CellPosterior


def describe(state: State) -> dict[str, Any]:
    """Return settings hash, journal time, books, cells and markets as plain JSON values."""
    progress = state.progress
    return {
        "partition": state.partition,
        "journal_id": None if progress is None else progress.journal_id,
        "journal_time_ns": None if progress is None else progress.now_ns,
        "settings_hash": state.settings_hash,
        "decision_version": None if progress is None else progress.decision_version,
        "portfolios": {key[0]: _portfolio(state, key[0]) for key in sorted(state.books)},
        "markets": {key[0]: _market(state, key) for key in sorted(state.markets)},
        "trading_states": dict(state.ordered(MARKET_WIDE)),
        "records": {table: len(records) for table, records in state.tables.items()},
    }


def _portfolio(state: State, portfolio: str) -> dict[str, Any]:
    book = state.book(portfolio)
    forecast = [(key[1], key[2]) for key in state.predictions if key[0] == portfolio]
    cells = sorted(dict.fromkeys([*forecast, *state.cells(portfolio)]))
    states = trading_states(state, portfolio, cells)
    return {
        **book._asdict(),
        "drawdown": max(0.0, 1.0 - book.value_usd / book.peak_usd) if book.peak_usd > 0.0 else 0.0,
        "cells": {
            "/".join(cell): _cell(state, (portfolio, *cell), now) for cell, now in zip(cells, states, strict=True)
        },
    }


def _cell(state: State, key: tuple[str, ...], trading: str) -> dict[str, Any]:
    cell, target = state.predictions.get(key), state.targets.get(key)
    learned, scores = state.posteriors.get(key), state.scores.get(key)
    return {
        "forecast": None if cell is None or cell.forecast is None else cell.forecast._asdict(),
        "open_claims": 0 if cell is None else len(cell.claims),
        "target": None if target is None else target._asdict(),
        "posterior": None if learned is None else _posterior(state, key, learned),
        "conformal_level": None if scores is None else scores.level,
        "conformal_samples": 0 if scores is None else len(scores.window),
        "trading_state": trading,
    }


def _posterior(state: State, key: tuple[str, ...], learned: CellPosterior) -> dict[str, Any]:
    """Return a cell's posterior with its prior, so that h2/h1 is how much of a claim is believed."""
    params = state.params.position_sizing.bayesian_kelly
    return calibration.with_prior(learned.posterior, params, state.pools.get(key[:2]))._asdict()


def _market(state: State, key: tuple[str, ...]) -> dict[str, Any]:
    market = state.markets[key]
    return {
        "bars": None if market.bars is None else market.bars._asdict(),
        "long": None if market.long is None else market.long._asdict(),
        "short": None if market.short is None else market.short._asdict(),
        "source_partition": market.source_partition,
    }

"""Backtests: candles and signals of the past through the worker's own ingest, market and fold, and a report of them."""

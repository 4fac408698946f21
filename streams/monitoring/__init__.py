"""Metrics, diagnostics and HTTP pages of a worker."""

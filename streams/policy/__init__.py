"""Asking an outside policy: adapters, what counts as an answer, the side agent, and a reference endpoint."""

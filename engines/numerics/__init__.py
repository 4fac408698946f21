"""Numerical functions whose results are the same to the last bit on every machine."""

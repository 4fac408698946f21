"""Ledoit and Wolf's intensities from their definitions: too strong for these markets, so an oracle and no engine.

Source: Ledoit and Wolf 2003, "Honey, I shrunk the sample covariance matrix" (constant correlation); 2004 (identity).
"""

import numpy as np


def constant_correlation_intensity(returns):
    """Return δ in [0, 1] of a (bars, n) window: how far to draw its covariance towards constant correlation."""
    x, S, var, pi = _moments(returns)
    n = len(S)
    sd = np.sqrt(var)
    mean = ((S / np.outer(sd, sd)).sum() - n) / (n * (n - 1))
    target = mean * np.outer(sd, sd)
    np.fill_diagonal(target, var)
    # θ[i, j] = covariance of the estimates of s_ii and s_ij
    theta = np.mean((x**2 - var)[:, :, None] * (x[:, :, None] * x[:, None, :] - S), axis=0)
    scaled = theta * np.outer(1 / sd, sd)
    rho = np.trace(pi) + mean * (scaled.sum() - np.trace(scaled))
    return _clipped((pi.sum() - rho) / ((S - target) ** 2).sum() / len(x))


def identity_intensity(returns):
    """Return δ in [0, 1] of a (bars, n) window: how far to draw its covariance towards equal variances and no more."""
    x, S, var, pi = _moments(returns)
    target = var.mean() * np.eye(len(S))
    return _clipped(pi.sum() / ((S - target) ** 2).sum() / len(x))


def _moments(returns):
    """Return the centred window, its covariance, its variances, and the variances of the covariance's elements."""
    x = returns - returns.mean(axis=0)
    S = x.T @ x / len(x)
    return x, S, np.diag(S), np.mean((x[:, :, None] * x[:, None, :] - S) ** 2, axis=0)


def _clipped(intensity):
    return float(min(max(intensity, 0.0), 1.0))

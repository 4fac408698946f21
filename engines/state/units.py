"""Units: what one unit of a published quantity is, and what it is worth.

A quantity counts coins, unless `position_sizing.contracts` says that the symbol is traded in contracts. A contract is
worth `size` coins, or `size` USD if it is inverse: such a contract is worth the same at every price.

    >>> contract = ContractParams(size=0.01)
    >>> unit_usd(PositionSizing(contracts={"BTC-PERP": contract}), "BTC-PERP", 60_000.0)
    600.0

Source: docs/pipeline.md, lots and contracts.
"""

from typing import Final

from engines.parameters import ContractParams, PositionSizing
from engines.state.partition import State

__all__ = ["ContractParams", "cents_of", "lot_of", "unit_now", "unit_usd"]

DEFAULT_LOT: Final = 1e-8
"""Smallest quantity of a symbol that is traded in coins."""
WHOLE_CONTRACT: Final = 1.0
CENTS_MAX: Final = 1e15
"""Ten trillion USD: the largest value of one symbol. A price times a quantity has no end, JSON's integers have one, and
the sum over all cells of a portfolio must stay below it."""


def unit_usd(sizing: PositionSizing, symbol: str, price: float) -> float:
    """Return the value of one unit of a symbol's quantity in USD at a price in USD per coin."""
    contract = sizing.contracts.get(symbol)
    if contract is None:
        return price
    return contract.size if contract.inverse else contract.size * price


def unit_now(state: State, symbol: str) -> float | None:
    """Return the value of one unit of a symbol's quantity in USD at its last price; None if it never had one."""
    market = state.markets.get((symbol,))
    if market is None or market.bars is None:
        return None
    return unit_usd(state.params.position_sizing, symbol, market.bars.last_price)


def lot_of(sizing: PositionSizing, symbol: str) -> float:
    """Return the smallest quantity of a symbol that can be traded, in coins or contracts."""
    lot = sizing.lots.get(symbol)
    if lot is not None:
        return lot
    return WHOLE_CONTRACT if symbol in sizing.contracts else DEFAULT_LOT


def cents_of(quantity: float, unit_usd: float) -> int:
    """Return the value of a quantity to the nearest cent, bounded by `CENTS_MAX`."""
    return round(max(-CENTS_MAX, min(CENTS_MAX, 100.0 * quantity * unit_usd)))

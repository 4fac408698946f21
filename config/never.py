"""Finds settings that are valid by themselves but could never act together; loading refuses them.

The check is not in the models, because settings that are in force in a journal must still be folded.
docs/decisions/0034 lists the pairs, and those that are allowed.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from config.settings import Settings
from engines.models import conformal
from engines.models.regime import KNOWN
from schemas.vocabulary import plain_word


class NeverActs(NamedTuple):
    """A setting that could never act, given another one."""

    key: str
    """Dotted path."""
    rule: str


def never_acting(settings: Settings) -> Iterator[NeverActs]:
    """Yield the settings that could never act."""
    for rule in RULES:
        yield from rule(settings)


def _conformal_window(settings: Settings) -> Iterator[NeverActs]:
    params = settings.position_sizing.conformal_prediction
    needed = conformal.needed(params)
    if params.window_size < needed:
        rule = (
            f"must be at least {needed}, the number of scores required (min_samples {params.min_samples}, "
            f"coverage {params.coverage:g}), was {params.window_size}"
        )
        yield NeverActs("position_sizing.conformal_prediction.window_size", rule)


def _aliases(settings: Settings) -> Iterator[NeverActs]:
    seen: dict[str, str] = {}
    for alias in settings.position_sizing.regime_adjustment.regime_aliases:
        name = plain_word(alias.strip())
        key = f"position_sizing.regime_adjustment.regime_aliases.{alias}"
        if name in KNOWN:
            yield NeverActs(key, f"must not be a known regime, which keeps its meaning, was {name}")
        elif name in seen:
            yield NeverActs(key, f"must differ from the alias {seen[name]!r} in more than case, spaces and hyphens")
        seen.setdefault(name, alias)


def _cascade_margin(settings: Settings) -> Iterator[NeverActs]:
    levels = settings.risk_management.cascade_levels
    if levels.margin >= levels.reduce_50:
        rule = f"must be below reduce_50 {levels.reduce_50:g}, or that level is never left, was {levels.margin:g}"
        yield NeverActs("risk_management.cascade_levels.margin", rule)


def _correlation_memory(settings: Settings) -> Iterator[NeverActs]:
    inactive_s, bar_s = settings.risk_management.correlation.inactive_after_s, settings.market.bar_s
    if inactive_s < bar_s:
        rule = f"must be at least market.bar_s {bar_s}, or every bar removes the previous one, was {inactive_s}"
        yield NeverActs("risk_management.correlation.inactive_after_s", rule)


def _price_age(settings: Settings) -> Iterator[NeverActs]:
    age_s, step_s = settings.validation_criteria.max_price_age_s, settings.market.step_s
    if age_s < step_s:
        rule = f"must be at least market.step_s {step_s}, or every price is stale, was {age_s:g}"
        yield NeverActs("validation_criteria.max_price_age_s", rule)


RULES: Final[tuple[Callable[[Settings], Iterator[NeverActs]], ...]] = (
    _conformal_window,
    _aliases,
    _cascade_margin,
    _correlation_memory,
    _price_age,
)

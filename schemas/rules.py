"""The rule that a value breaks, as code, field and text; the same wording for every message."""

from collections.abc import Callable, Mapping
from reprlib import Repr
from typing import Any, NamedTuple, cast, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas.vocabulary import ErrorCode

TIMESTAMP_MIN_NS = 1_000_000_000_000_000_000
TIMESTAMP_MAX_NS = 4_100_000_000_000_000_000
FIELD_CHARS_MAX = 200
"""Longest path in an error: paths contain keys chosen by the sender."""
_UNITS = {"seconds": 1_000_000_000, "milliseconds": 1_000_000, "microseconds": 1_000}
_INT64 = float(2**63)
_CODES = frozenset(get_args(ErrorCode))


class Fault(NamedTuple):
    """One broken rule; `rule` continues after the field's name: "must be at most 1, was 1.2"."""

    code: ErrorCode
    field: str
    rule: str


def broken(fault: Fault) -> PydanticCustomError:
    """Return the error for a validator to raise; `fault.field` is relative to the validated value, "" for itself."""
    return PydanticCustomError(fault.code, "{rule}", {"field": fault.field, "rule": fault.rule})


def within(error: ValidationError) -> PydanticCustomError:
    """Return the error for a validator to raise when another model refused a part of its value."""
    return broken(first(error))


def first(error: ValidationError) -> Fault:
    """Return the first broken rule in the order of the fields; the others are ignored."""
    details = error.errors(include_url=False)[0]
    context = details.get("ctx", {})
    field = ".".join(map(str, details["loc"]))[:FIELD_CHARS_MAX]
    if details["type"] in _CODES and "rule" in context:
        path = ".".join(filter(None, (field, context["field"])))
        return Fault(cast("ErrorCode", details["type"]), path, context["rule"])
    if field.endswith("_ns"):
        unit = _unit_meant(details["input"])
        if unit is not None:
            rule = f"must be in nanoseconds since 1970, {details['input']!r} looks like {unit}"
            return Fault("timestamp_unit", field, rule)
    code, rule = _described(details, context)
    return Fault(code, field, rule)


def shown(value: object) -> str:
    """Return a value for an error text, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _SHORT.repr(value)


def _unit_meant(value: object) -> str | None:
    """Return the unit other than nanoseconds in which a number would be a valid time; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    fitting = (unit for unit, ns in _UNITS.items() if TIMESTAMP_MIN_NS <= value * ns <= TIMESTAMP_MAX_NS)
    return next(fitting, None)


def _described(details: ErrorDetails, context: Mapping[str, Any]) -> tuple[ErrorCode, str]:
    kind = details["type"]
    if kind == "missing":
        return "missing", "must be given"
    if kind == "value_error":
        return "inconsistent", str(context["error"])
    if kind.startswith("int_") and isinstance(details["input"], float) and abs(details["input"]) >= _INT64:
        return "out_of_range", f"must be an integer of 64 bits, was {details['input']!r}"
    code, rule = _RULES.get(kind, ("malformed", lambda _: details["msg"]))
    return code, f"{rule(context)}, was {shown(details['input'])}"


_RULES: dict[str, tuple[ErrorCode, Callable[[Mapping[str, Any]], str]]] = {
    "float_type": ("wrong_type", lambda _: "must be a number"),
    "int_type": ("wrong_type", lambda _: "must be an integer"),
    "int_from_float": ("wrong_type", lambda _: "must be an integer"),
    "int_parsing_size": ("out_of_range", lambda _: "must be an integer of 64 bits"),
    "string_type": ("wrong_type", lambda _: "must be a string"),
    "bool_type": ("wrong_type", lambda _: "must be true or false"),
    "dict_type": ("wrong_type", lambda _: "must be an object"),
    "model_type": ("wrong_type", lambda _: "must be an object"),
    "list_type": ("wrong_type", lambda _: "must be an array"),
    "tuple_type": ("wrong_type", lambda _: "must be an array"),
    "finite_number": ("not_finite", lambda _: "must be finite"),
    "literal_error": ("unknown_value", lambda context: f"must be {context['expected']}"),
    "greater_than": ("out_of_range", lambda context: f"must be greater than {context['gt']:g}"),
    "greater_than_equal": ("out_of_range", lambda context: f"must be at least {context['ge']:g}"),
    "less_than": ("out_of_range", lambda context: f"must be less than {context['lt']:g}"),
    "less_than_equal": ("out_of_range", lambda context: f"must be at most {context['le']:g}"),
    "too_short": ("out_of_range", lambda context: f"must have at least {context['min_length']}"),
    "too_long": ("out_of_range", lambda context: f"must have at most {context['max_length']}"),
    "string_too_long": ("malformed", lambda context: f"must have at most {context['max_length']} characters"),
    "string_pattern_mismatch": ("malformed", lambda context: f"must match {context['pattern']}"),
}

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 3
_SHORT.maxlevel = 2

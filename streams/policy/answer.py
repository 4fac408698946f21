"""What counts as an answer: all of it is as it has to be, or it is a failure that names place, rule and value."""

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar, Final, NamedTuple

from pydantic import Field, StringConstraints

from engines.handlers.policy_request import FEATURES
from schemas import wire
from schemas.base import Message
from schemas.errors import InvalidAdviceException, InvalidMessage
from schemas.rl import NoAdviceReason
from schemas.units import Return, Unit, Volatility
from schemas.vocabulary import ErrorCode
from schemas.wire import RecordLimits

REPLY_BYTES_MAX: Final = 65_536
NUDGE_MAX: Final = 100.0
"""A position is turned into a nudge of at most this; the blend's own bound is far below."""
LIMITS: Final = RecordLimits(bytes_max=REPLY_BYTES_MAX)
FLOATS: Final = ("FP32", "FP64")
STATE: Final = "state"
NEEDED: Final = ("nudge", "confidence")
OPTIONAL: Final = ("predicted_return", "predicted_volatility")


class Answer(NamedTuple):
    """A policy's answer, checked in full."""

    nudge: float
    """Relative change of w_base that it asks for."""
    confidence: float
    model_version: str
    predicted_return: float | None
    predicted_volatility: float | None
    raw: str
    """As it came."""


class NoAnswer(Exception):  # noqa: N818 it is no error of ours
    """Why there is no answer; the agent journals it."""

    def __init__(self, reason: NoAdviceReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class _Reply(Message):
    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException


PositionRatio = Annotated[float, Field(ge=-1, le=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]
"""Printable ASCII: it is shown to people."""


class Predicted(_Reply):
    """The mission's answer: a position as a signed share of the portfolio's value."""

    position_pct: PositionRatio
    confidence: Unit
    predicted_return: Return
    predicted_volatility: Volatility
    model_version: Name


class Advised(_Reply):
    """What the outputs of an Open Inference answer have to be."""

    nudge: Annotated[float, Field(ge=-1, le=1)]
    confidence: Unit
    predicted_return: Return | None = None
    predicted_volatility: Volatility | None = None


class Tensor(_Reply):
    """One output of an Open Inference answer."""

    name: Name
    shape: Annotated[list[int], Field(min_length=1, max_length=4)]
    datatype: Name
    data: list[Any]


class Inferred(_Reply):
    """An Open Inference answer."""

    model_name: Name
    model_version: Name | None = None
    id: Name
    outputs: list[Tensor]


class Declared(_Reply):
    """Name, datatype and shape of one input or output; -1 stands for any length."""

    name: Name
    datatype: Name
    shape: Annotated[list[int], Field(min_length=1, max_length=4)]


class Metadata(_Reply):
    """What an Open Inference endpoint says of a model."""

    name: Name
    versions: list[Name] = Field([])
    platform: str = ""
    inputs: list[Declared]
    outputs: list[Declared]


class Kinds(NamedTuple):
    """What the metadata leaves open, once it fits."""

    state: str
    """Datatype in which the state vector is sent."""
    outputs: Mapping[str, str]
    """Datatype of each output that is read."""
    version: str
    """Newest version, "" where none is named."""


# -- predict -----------------------------------------------------------------------------------------------------------
def predicted(raw: bytes, w_base: float, *, place: str) -> Answer:
    """Return the mission's answer as a nudge: position_pct / w_base − 1, and 0 where w_base is 0.

    Args:
        raw: the reply's body.
        w_base: signed share of V that the rules came to.
        place: what an error names.

    Raises:
        InvalidAdviceException: some of it breaks a rule.
    """
    reply = wire.decode(Predicted, raw, place=place, limits=LIMITS)
    return Answer(
        nudge_of(reply.position_pct, w_base),
        reply.confidence,
        reply.model_version,
        reply.predicted_return,
        reply.predicted_volatility,
        raw.decode(),
    )


def nudge_of(position: float, w_base: float) -> float:
    """Return the relative change that leads from w_base to a position, within ±100.

    >>> nudge_of(0.12, 0.1)
    0.19999999999999996
    >>> nudge_of(0.12, 0.0)
    0.0
    """
    return 0.0 if w_base == 0.0 else max(-NUDGE_MAX, min(NUDGE_MAX, position / w_base - 1.0))


# -- Open Inference ----------------------------------------------------------------------------------------------------
def inferred(raw: bytes, decision_id: str, model: str, kinds: Kinds, *, place: str) -> Answer:
    """Return an Open Inference answer: outputs `nudge` and `confidence`, each one number, and what it may add.

    Args:
        raw: the reply's body.
        decision_id: the `id` it has to carry.
        model: the name it has to carry.
        kinds: datatypes that the metadata declared.
        place: what an error names.

    Raises:
        InvalidAdviceException: some of it breaks a rule.
    """
    reply = wire.decode(Inferred, raw, place=place, limits=LIMITS)
    _same("id", reply.id, decision_id, place)
    _same("model_name", reply.model_name, model, place)
    numbers: dict[str, Any] = {}
    for index, tensor in enumerate(reply.outputs):
        if tensor.name in kinds.outputs:
            if tensor.name in numbers:
                raise _refused("duplicate_key", f"outputs.{index}.name", f"{tensor.name} must come once", place)
            numbers[tensor.name] = _number(tensor, kinds.outputs[tensor.name], f"outputs.{index}", place)
    told = wire.validate(Advised, numbers, place=f"{place}: outputs")
    return Answer(
        told.nudge,
        told.confidence,
        reply.model_version or kinds.version or model,
        told.predicted_return,
        told.predicted_volatility,
        raw.decode(),
    )


def fitting(raw: bytes, model: str, *, place: str) -> Kinds:
    """Return what a model's metadata leaves open, or say why it does not fit.

    It fits with exactly one input, `state`, FP32 or FP64 of shape [1, number of features], and the outputs `nudge`
    and `confidence` of one number each; -1 fits any length.

    Raises:
        InvalidAdviceException: place, rule and value.
    """
    told = wire.decode(Metadata, raw, place=place, limits=LIMITS)
    _same("name", told.name, model, place)
    if [each.name for each in told.inputs] != [STATE]:
        names = ", ".join(each.name for each in told.inputs)
        raise _refused("inconsistent", "inputs", f"must be {STATE} alone, was {names or 'none'}", place)
    _fits(told.inputs[0], (1, len(FEATURES)), "inputs.0", place)
    outputs: dict[str, str] = {}
    for index, each in enumerate(told.outputs):
        if each.name in (*NEEDED, *OPTIONAL):
            _fits(each, (1,) * len(each.shape), f"outputs.{index}", place)
            outputs[each.name] = each.datatype
    for name in NEEDED:
        if name not in outputs:
            raise _refused("missing", "outputs", f"must hold {name}", place)
    return Kinds(told.inputs[0].datatype, outputs, told.versions[-1] if told.versions else "")


def _fits(declared: Declared, shape: tuple[int, ...], field: str, place: str) -> None:
    if declared.datatype not in FLOATS:
        rule = f"{declared.name} must be {' or '.join(FLOATS)}, was {declared.datatype}"
        raise _refused("wrong_type", f"{field}.datatype", rule, place)
    if len(declared.shape) != len(shape) or any(
        size not in {-1, wanted} for size, wanted in zip(declared.shape, shape, strict=True)
    ):
        rule = f"{declared.name} must be {list(shape)} (-1: any), was {declared.shape}"
        raise _refused("inconsistent", f"{field}.shape", rule, place)


def _number(tensor: Tensor, datatype: str, field: str, place: str) -> Any:
    """Return the one value that a tensor holds, flat or nested; what it is worth is not looked at yet."""
    if tensor.datatype != datatype:
        rule = f"{tensor.name} must be {datatype}, was {tensor.datatype}"
        raise _refused("wrong_type", f"{field}.datatype", rule, place)
    if min(tensor.shape) < 1 or prod(tensor.shape) != 1:
        raise _refused("inconsistent", f"{field}.shape", f"{tensor.name} must be one number, was {tensor.shape}", place)
    value: Any = tensor.data
    for _ in tensor.shape:
        if type(value) is list:
            if len(value) != 1:
                rule = f"{tensor.name} must hold one number, was {len(value)} values"
                raise _refused("inconsistent", f"{field}.data", rule, place)
            value = value[0]
    return value


def _same(field: str, found: str, wanted: str, place: str) -> None:
    if found != wanted:
        raise _refused("inconsistent", field, f"must be {wanted}, was {found[:64]!r}", place)


def _refused(code: ErrorCode, field: str, rule: str, place: str) -> InvalidAdviceException:
    return InvalidAdviceException(code, field, f"{place}: {field}: {rule}")

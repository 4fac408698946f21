"""What counts as an answer: all of it is as it has to be, or it is a failure that names place, rule and value."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, NamedTuple

from pydantic import Field, StringConstraints

from config.policy import TensorNames
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
FLOAT_UNDECLARED: Final = "FP32"
"""How the state is sent to a model that does not declare its input: what models are trained in."""
NEEDED: Final = ("nudge", "confidence")
BOUNDED: Final = {"nudge": (-1.0, 1.0), "confidence": (0.0, 1.0)}
ROUNDING: Final = 1e-6
"""A bounded output this little outside is at its bound: a softmax in FP32 can sum to 1.0000001."""


TENSORS: Final = TensorNames()


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
    shape: Annotated[list[int], Field(max_length=4)]
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
    shape: Annotated[list[int], Field(max_length=4)]


class Metadata(_Reply):
    """What an Open Inference endpoint says of a model. Null is absent: KServe's Python server writes it so."""

    name: Name
    versions: list[Name] | None = None
    platform: str | None = None
    inputs: list[Declared] | None = None
    outputs: list[Declared] | None = None


class Kinds(NamedTuple):
    """What the metadata leaves open, once it fits."""

    state: str
    """Datatype in which the state vector is sent."""
    outputs: tuple[str, ...]
    """The outputs that are read, by the model's names; empty where it declares none."""
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
def inferred(
    raw: bytes, decision_id: str, model: str, kinds: Kinds, tensors: TensorNames = TENSORS, *, place: str
) -> Answer:
    """Return an Open Inference answer: outputs `nudge` and `confidence`, each one number, and what it may add.

    Args:
        raw: the reply's body.
        decision_id: the `id` it has to carry.
        model: the name it has to carry.
        kinds: what the metadata declared.
        tensors: what the model calls its outputs.
        place: what an error names.

    Raises:
        InvalidAdviceException: some of it breaks a rule.
    """
    reply = wire.decode(Inferred, raw, place=place, limits=LIMITS)
    _same("id", reply.id, decision_id, place)
    _same("model_name", reply.model_name, model, place)
    ours = {name: field for field, name in tensors.outputs().items() if not kinds.outputs or name in kinds.outputs}
    numbers: dict[str, Any] = {}
    for index, tensor in enumerate(reply.outputs):
        field = ours.get(tensor.name)
        if field is not None:
            if field in numbers:
                raise _refused("duplicate_key", f"outputs.{index}.name", f"{tensor.name} must come once", place)
            numbers[field] = _rounded(field, _number(tensor, f"outputs.{index}", place))
    told = wire.validate(Advised, numbers, place=f"{place}: outputs")
    return Answer(
        told.nudge,
        told.confidence,
        reply.model_version or kinds.version or model,
        told.predicted_return,
        told.predicted_volatility,
        raw.decode(),
    )


def fitting(raw: bytes, model: str, tensors: TensorNames = TENSORS, *, place: str) -> Kinds:
    """Return what a model's metadata leaves open, or say why it does not fit.

    It fits with exactly one input, `state`, FP32 or FP64 of shape [1, number of features], and the outputs `nudge`
    and `confidence` of one number each, by the names of `tensors`; -1 fits any length. Python servers (KServe,
    MLServer) declare no inputs or outputs where the model's author did not: then the answers alone are checked.

    Raises:
        InvalidAdviceException: place, rule and value.
    """
    told = wire.decode(Metadata, raw, place=place, limits=LIMITS)
    _same("name", told.name, model, place)
    return Kinds(
        _input(told.inputs or [], tensors, place),
        tuple(_outputs(told.outputs or [], tensors, place)),
        told.versions[-1] if told.versions else "",
    )


def _input(declared: list[Declared], tensors: TensorNames, place: str) -> str:
    """Return the datatype in which the state is sent."""
    if not declared:
        return FLOAT_UNDECLARED
    if [each.name for each in declared] != [tensors.state]:
        names = ", ".join(each.name for each in declared)
        raise _refused("inconsistent", "inputs", f"must be {tensors.state} alone (rl.tensors), was {names}", place)
    _fits(declared[0], (1, len(FEATURES)), "inputs.0", place)
    return declared[0].datatype


def _outputs(declared: list[Declared], tensors: TensorNames, place: str) -> Iterator[str]:
    """Yield the names of the declared outputs that are read; none are where none are declared."""
    names = tensors.outputs()
    for field in NEEDED:
        if declared and names[field] not in {each.name for each in declared}:
            found = ", ".join(each.name for each in declared)
            raise _refused("missing", "outputs", f"must hold {names[field]} (rl.tensors), was {found}", place)
    for index, each in enumerate(declared):
        if each.name in names.values():
            _fits(each, (1,) * len(each.shape), f"outputs.{index}", place)
            yield each.name


def _fits(declared: Declared, shape: tuple[int, ...], field: str, place: str) -> None:
    if declared.datatype not in FLOATS:
        rule = f"{declared.name} must be {' or '.join(FLOATS)}, was {declared.datatype}"
        raise _refused("wrong_type", f"{field}.datatype", rule, place)
    if len(declared.shape) != len(shape) or any(
        size not in {-1, wanted} for size, wanted in zip(declared.shape, shape, strict=True)
    ):
        rule = f"{declared.name} must be {list(shape)} (-1: any), was {declared.shape}"
        raise _refused("inconsistent", f"{field}.shape", rule, place)


def _number(tensor: Tensor, field: str, place: str) -> Any:
    """Return the one value that a tensor holds, flat or nested; what it is worth is not looked at yet.

    Either float will do, whatever was declared: Python servers answer in the type of the array that they have.
    """
    if tensor.datatype not in FLOATS:
        rule = f"{tensor.name} must be {' or '.join(FLOATS)}, was {tensor.datatype}"
        raise _refused("wrong_type", f"{field}.datatype", rule, place)
    if any(size != 1 for size in tensor.shape):
        raise _refused("inconsistent", f"{field}.shape", f"{tensor.name} must be one number, was {tensor.shape}", place)
    value: Any = tensor.data
    for _ in tensor.shape or (1,):
        if type(value) is list:
            if len(value) != 1:
                rule = f"{tensor.name} must hold one number, was {len(value)} values"
                raise _refused("inconsistent", f"{field}.data", rule, place)
            value = value[0]
    return value


def _rounded(field: str, value: Any) -> Any:
    """Return a bounded output that is outside by rounding alone as its bound."""
    if field not in BOUNDED or type(value) is not float:
        return value
    low, high = BOUNDED[field]
    return min(max(value, low), high) if low - ROUNDING <= value <= high + ROUNDING else value


def _same(field: str, found: str, wanted: str, place: str) -> None:
    if found != wanted:
        raise _refused("inconsistent", field, f"must be {wanted}, was {found[:64]!r}", place)


def _refused(code: ErrorCode, field: str, rule: str, place: str) -> InvalidAdviceException:
    return InvalidAdviceException(code, field, f"{place}: {field}: {rule}")

"""Validation of policy answers: an answer is valid in full, or refused with place, rule and value."""

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
"""Largest nudge that a position is converted to; the blend applies a much smaller bound."""
LIMITS: Final = RecordLimits(bytes_max=REPLY_BYTES_MAX)
FLOATS: Final = ("FP32", "FP64")
FLOAT_UNDECLARED: Final = "FP32"
"""Datatype of the state for a model that does not declare its input: the usual one in training."""
NEEDED: Final = ("nudge", "confidence")
BOUNDED: Final = {"nudge": (-1.0, 1.0), "confidence": (0.0, 1.0)}
ROUNDING: Final = 1e-6
"""An output that exceeds its bound by no more than this is clamped: a softmax in FP32 can sum to 1.0000001."""
TENSORS: Final = TensorNames()


class Answer(NamedTuple):
    """A validated policy answer."""

    nudge: float
    """Requested relative change of w_base."""
    confidence: float
    model_version: str
    predicted_return: float | None
    predicted_volatility: float | None
    raw: str
    """The answer as received."""


class NoAnswer(Exception):  # noqa: N818 an expected result, not a program error
    """There is no valid answer; `reason` says why, and is journaled."""

    def __init__(self, reason: NoAdviceReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class _Reply(Message):
    refused_as: ClassVar[type[InvalidMessage]] = InvalidAdviceException


PositionRatio = Annotated[float, Field(ge=-1, le=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]
"""Printable ASCII, since it is displayed."""


class Predicted(_Reply):
    """A `predict` answer: a position as a signed ratio of portfolio value."""

    position_pct: PositionRatio
    confidence: Unit
    predicted_return: Return
    predicted_volatility: Volatility
    model_version: Name


class Advised(_Reply):
    """The outputs of an Open Inference answer."""

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
    """Name, datatype and shape of one input or output; -1 is any length."""

    name: Name
    datatype: Name
    shape: Annotated[list[int], Field(max_length=4)]


class Metadata(_Reply):
    """Open Inference metadata of a model. Null counts as absent, as KServe's Python server writes it."""

    name: Name
    versions: list[Name] | None = None
    platform: str | None = None
    inputs: list[Declared] | None = None
    outputs: list[Declared] | None = None


class Kinds(NamedTuple):
    """Datatypes and version from valid metadata."""

    state: str
    """Datatype of the state vector."""
    outputs: tuple[str, ...]
    """The requested outputs, by the model's names; empty if it declares none."""
    version: str
    """Newest version, "" if none is named."""


# -- predict -----------------------------------------------------------------------------------------------------------
def predicted(raw: bytes, w_base: float, *, place: str) -> Answer:
    """Return a `predict` answer as a nudge: position_pct / w_base − 1, or 0 if w_base is 0.

    Args:
        raw: body of the reply.
        w_base: the rules' position, a signed ratio of portfolio value.
        place: place for error texts.

    Raises:
        InvalidAdviceException: a field breaks a rule.
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
    """Return the relative change from w_base to a position, clamped to ±`NUDGE_MAX`.

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
    """Return an Open Inference answer: outputs `nudge` and `confidence`, one number each, and the optional outputs.

    Args:
        raw: body of the reply.
        decision_id: the `id` it must carry.
        model: the model name it must carry.
        kinds: datatypes and outputs from the metadata.
        tensors: the model's names for its outputs.
        place: place for error texts.

    Raises:
        InvalidAdviceException: a field breaks a rule.
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
                raise _refused("duplicate_key", f"outputs.{index}.name", f"{tensor.name} must appear once", place)
            numbers[field] = _rounded(field, _number(tensor, f"outputs.{index}", place))
    outputs = wire.validate(Advised, numbers, place=f"{place}: outputs")
    return Answer(
        outputs.nudge,
        outputs.confidence,
        reply.model_version or kinds.version or model,
        outputs.predicted_return,
        outputs.predicted_volatility,
        raw.decode(),
    )


def fitting(raw: bytes, model: str, tensors: TensorNames = TENSORS, *, place: str) -> Kinds:
    """Validate a model's metadata; return its datatypes and version.

    Required: exactly one input, `state`, FP32 or FP64 with shape [1, number of features], and the outputs `nudge` and
    `confidence` with one number each, by the names in `tensors`; -1 matches any length. Python servers (KServe,
    MLServer) may declare no inputs or no outputs: then only the answers are checked.

    Raises:
        InvalidAdviceException: place, rule and value.
    """
    metadata = wire.decode(Metadata, raw, place=place, limits=LIMITS)
    _same("name", metadata.name, model, place)
    return Kinds(
        _input(metadata.inputs or [], tensors, place),
        tuple(_outputs(metadata.outputs or [], tensors, place)),
        metadata.versions[-1] if metadata.versions else "",
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
    """Yield the names of the declared outputs to request; none if none are declared."""
    names = tensors.outputs()
    for field in NEEDED:
        if declared and names[field] not in {each.name for each in declared}:
            found = ", ".join(each.name for each in declared)
            raise _refused("missing", "outputs", f"must include {names[field]} (rl.tensors), was {found}", place)
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
    """Return the single value of a tensor, flat or nested; the value itself is validated later.

    FP32 and FP64 are both accepted, whatever was declared: Python servers answer in the datatype of their array.
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
                rule = f"{tensor.name} must contain one number, was {len(value)} values"
                raise _refused("inconsistent", f"{field}.data", rule, place)
            value = value[0]
    return value


def _rounded(field: str, value: Any) -> Any:
    """Return a value; a bounded output that exceeds its bound only by rounding is clamped to it."""
    if field not in BOUNDED or type(value) is not float:
        return value
    low, high = BOUNDED[field]
    return min(max(value, low), high) if low - ROUNDING <= value <= high + ROUNDING else value


def _same(field: str, found: str, wanted: str, place: str) -> None:
    if found != wanted:
        raise _refused("inconsistent", field, f"must be {wanted}, was {found[:64]!r}", place)


def _refused(code: ErrorCode, field: str, rule: str, place: str) -> InvalidAdviceException:
    return InvalidAdviceException(code, field, f"{place}: {field}: {rule}")

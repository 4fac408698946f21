"""How the policy is asked: the worker's part of `rl`, beside the decision's."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints, model_validator

from config.security import File, Variable
from engines.parameters import RlParams
from schemas.base import Frozen
from schemas.rules import Fault, broken

PolicyProtocol = Literal["oip", "predict", "mock"]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:\[\]-]{1,255}(/[A-Za-z0-9._~%/+-]{0,255})?$")]
"""No user, no query, no fragment: a secret would be shown with them."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]


class TensorNames(Frozen):
    """What a model calls its input and its outputs (Open Inference)."""

    state: ModelName = Field("state", description="input: the state vector")
    nudge: ModelName = Field("nudge", description="output: relative change of the size")
    confidence: ModelName = Field("confidence", description="output: how sure it is")
    predicted_return: ModelName = Field("predicted_return", description="output, optional")
    predicted_volatility: ModelName = Field("predicted_volatility", description="output, optional")

    @model_validator(mode="after")
    def _each_its_own(self) -> Self:
        seen: set[str] = set()
        for field, name in self.outputs().items():
            if name in seen:
                raise broken(
                    Fault("inconsistent", field, f"must be another name than those of the other outputs, was {name!r}")
                )
            seen.add(name)
        return self

    def outputs(self) -> dict[str, str]:
        """Return the model's name of each output by ours."""
        return {field: getattr(self, field) for field in OUTPUTS}


OUTPUTS = ("nudge", "confidence", "predicted_return", "predicted_volatility")
"""What is read of an answer; the first two are required."""


class RlSettings(RlParams):
    """What decisions ask, which the journal holds, and how a worker asks it, which is its own affair."""

    protocol: PolicyProtocol = Field(
        "oip", description="oip: Open Inference v2; predict: the mission's JSON; mock: noise in process"
    )
    endpoint: Url | None = Field(None, description="URL of the policy; null: nobody is asked (mock needs none)")
    model: ModelName = Field("policy", description="name of the model (oip)")
    tensors: TensorNames = TensorNames()
    proxy: Url | None = Field(None, description="URL of an HTTP proxy on the way to the policy; null: none")
    timeout_sec: Annotated[float, Gt(0), Le(300)] = Field(5.0, description="seconds that an answer may take")
    max_in_flight: Annotated[int, Ge(1), Le(10_000)] = Field(128, description="questions asked at once, at most")
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = Field(0, description="seed of mock")
    token_env: Variable = Field(None, description="variable with a bearer token; null: none is sent")
    token_file: File = Field(None, description="file with a bearer token; null: none is sent")

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_env is not None and self.token_file is not None:
            msg = "token_env and token_file must not both be given"
            raise ValueError(msg)
        return self

    def decision(self) -> RlParams:
        """Return the decision's part alone."""
        return RlParams(**{name: getattr(self, name) for name in RlParams.model_fields})

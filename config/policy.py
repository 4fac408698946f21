"""How a worker calls the policy: its part of the `rl` section, in addition to the decision settings."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints, model_validator

from config.security import File, Variable
from engines.parameters import RlParams

PolicyProtocol = Literal["oip", "predict", "mock"]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:\[\]-]{1,255}(/[A-Za-z0-9._~%/+-]{0,255})?$")]
"""Without user, query and fragment, which could contain a secret and would be shown."""


class RlSettings(RlParams):
    """The decision settings of the policy, which are journaled, and how a worker calls it, which is local."""

    protocol: PolicyProtocol = Field(
        "oip", description="oip: Open Inference v2; predict: plain JSON (docs/hybrid.md); mock: in-process noise"
    )
    endpoint: Url | None = Field(None, description="URL of the policy; null: it is not called (mock needs none)")
    model: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")] = Field(
        "policy", description="name of the model (oip)"
    )
    timeout_sec: Annotated[float, Gt(0), Le(300)] = Field(5.0, description="timeout of one question, seconds")
    max_in_flight: Annotated[int, Ge(1), Le(10_000)] = Field(128, description="largest number of concurrent questions")
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = Field(0, description="random seed of mock")
    token_env: Variable = Field(None, description="environment variable with a bearer token; null: none is sent")
    token_file: File = Field(None, description="file with a bearer token; null: none is sent")

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_env is not None and self.token_file is not None:
            msg = "token_env and token_file must not both be given"
            raise ValueError(msg)
        return self

    def decision(self) -> RlParams:
        """Return only the decision settings."""
        return RlParams(**{name: getattr(self, name) for name in RlParams.model_fields})

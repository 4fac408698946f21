"""Hypothesis: new examples at every run on a developer's machine, the same ones in CI."""

import os

from hypothesis import HealthCheck, settings

SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", **SHARED)
settings.register_profile("ci", derandomize=True, **SHARED)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

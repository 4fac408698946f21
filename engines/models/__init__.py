"""Statistical models; each has parameters, a state and a step."""

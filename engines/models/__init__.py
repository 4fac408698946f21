"""The statistical models: each is parameters, a state and a step."""

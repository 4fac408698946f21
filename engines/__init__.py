"""The decision core: pure functions of state, event and parameters."""

"""The decisions: pure functions of state, event and parameters."""

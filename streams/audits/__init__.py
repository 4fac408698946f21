"""The audit of allocations: folded again from the journal, compared with what was published, in parts side by side."""

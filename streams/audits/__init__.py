"""The audit: replays the journal, in parallel segments, and compares the result with the published allocations."""

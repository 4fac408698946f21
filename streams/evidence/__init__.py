"""Evidence: what led to one decision, what other settings would have made of it, and how to prove it elsewhere."""

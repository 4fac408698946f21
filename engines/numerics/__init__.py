"""Numbers that come out the same to the last bit on every machine."""

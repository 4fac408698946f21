"""What allocations and states say, as tables and files."""

"""Reports on allocations and states: tables, files and text."""

"""The demo: everything in one command, and the table that shows it."""

"""`python -m streams` is `himari`."""

from streams.cli import main

main()

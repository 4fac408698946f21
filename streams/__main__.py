"""`python -m streams` is `himari`."""

from streams.cli import main

if __name__ == "__main__":  # processes of our own import it too
    main()

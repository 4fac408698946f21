"""Settings: one frozen tree, loading from file, environment and command line, and watching the file."""

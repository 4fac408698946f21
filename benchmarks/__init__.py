"""Benchmarks: medians of several runs, each with a yardstick measured in the same run; ratios rather than times."""

"""How fast: each benchmark beside a yardstick in the same run, medians of several runs, ratios rather than times."""

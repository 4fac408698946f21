"""From a portfolio's state and a trigger to its published targets: stages 1 to 14."""

"""The knobs: one frozen settings tree, where its values come from, and the watch on its file."""

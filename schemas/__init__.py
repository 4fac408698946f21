"""The words: messages, their units and ranges, and the errors. Nothing of ours is imported here."""

"""What each kind of journal entry does to the state."""

"""The shell: what carries bytes to the decisions and back."""

"""Messages with their units and ranges, and the errors. Imports no other package of this repository."""

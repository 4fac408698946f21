"""The topology live on Faust: application, transport, tables, and the worker."""

"""The journal: its entries and topics, Genesis, version handover, and dead letters."""

"""The journal: its entries and topics, how it begins, and what could not be taken into it."""

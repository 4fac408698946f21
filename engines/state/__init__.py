"""What sizing remembers: records, the partition that holds them, and the views on them."""

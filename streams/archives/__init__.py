"""Journal, allocations and checkpoints as files that outlast the cluster: Parquet, and a manifest whose lines chain."""

"""Flow records, the log writer, counters and metrics."""

"""Processes: supervisor, workers, reload, signals, readiness, drain."""

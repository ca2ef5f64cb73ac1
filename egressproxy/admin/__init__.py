"""The admin listener: health, readiness, metrics, policy, reload."""

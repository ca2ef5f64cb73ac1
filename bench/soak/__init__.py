"""``python -m bench.soak``: a service held under load for minutes, and whether anything grows."""

"""A hub-and-spoke network on one machine: what ``make demo`` shows and the root tests stand on.

Not part of the wheel. ``python -m lab.demo`` runs it for a person; ``lab.fixture.Lab`` is the same
thing for a test.
"""

"""Reviewing denies: the store of records, questions to it, what follows for the policy."""

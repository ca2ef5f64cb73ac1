"""Tries every name of a policy from the gateway itself."""

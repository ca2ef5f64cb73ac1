"""Benchmarks: ratios beside HAProxy and plain forwarding, never a timed test (see README.md)."""

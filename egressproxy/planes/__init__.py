"""The flow engine: listeners, sniff, judge, dial, relay, refuse."""

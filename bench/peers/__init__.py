"""The data planes under test, each as its own engineers would tune it, all with one policy."""

"""What only the Linux kernel knows: original destinations, marks, splice."""

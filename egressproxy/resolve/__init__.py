"""Names to addresses: resolver, cache, address guard. Knows no flows."""

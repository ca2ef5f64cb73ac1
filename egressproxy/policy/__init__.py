"""From a policy document to a frozen ruleset, and from a flow to a verdict."""

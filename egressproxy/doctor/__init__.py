"""Is this machine fit to be the gateway: a module a family of checks, over an injected view."""

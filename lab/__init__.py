"""A hub-and-spoke network on one machine: what ``make demo`` shows and the root tests stand on.

``network()`` builds namespaces, servers and registry, ``gateway()`` runs the product in the hub,
``demo`` plays its scenes there for a person, ``tests/lab`` holds it to its promises. It is not
part of the wheel, and the product knows nothing of it.
"""

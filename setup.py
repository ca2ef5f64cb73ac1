"""The flow path, compiled: what every connection runs through becomes C by mypyc at build time.

It stays the same typed Python; without a C compiler, or with ``EGRESSPROXY_NATIVE=0``, the wheel
carries it as such, which costs about a fifth more CPU a connection and nothing else. An editable
install is never compiled, so that what is edited is what runs.

Not compiled, because mypyc cannot or because it would not pay: classes that travel between
processes (pickle), subclasses of built-in types, what a flow does not run through.
"""

import os
import sys

from setuptools import Extension, setup

FLOW_PATH = [
    "egressproxy/kernel/destination.py",
    "egressproxy/kernel/sockets.py",
    "egressproxy/observe/counting.py",
    "egressproxy/observe/fold.py",
    "egressproxy/observe/log.py",
    "egressproxy/observe/record.py",
    "egressproxy/planes/accept.py",
    "egressproxy/planes/dial.py",
    "egressproxy/planes/flow.py",
    "egressproxy/planes/flows.py",
    "egressproxy/planes/ledger.py",
    "egressproxy/planes/limits.py",
    "egressproxy/planes/pace.py",
    "egressproxy/planes/reactor.py",
    "egressproxy/planes/refuse.py",
    "egressproxy/planes/relay.py",
    "egressproxy/planes/sniff.py",
    "egressproxy/planes/timers.py",
    "egressproxy/planes/tunnel.py",
    "egressproxy/policy/address.py",
    "egressproxy/policy/decide.py",
    "egressproxy/policy/matcher.py",
    "egressproxy/policy/memo.py",
    "egressproxy/policy/ruleset.py",
    "egressproxy/policy/table.py",
    "egressproxy/resolve/cache.py",
    "egressproxy/resolve/resolver.py",
    "egressproxy/wire/client_hello.py",
]


def compiled() -> list[Extension]:
    """The extension modules; none where they are not wanted or mypyc is not there."""
    if "editable_wheel" in sys.argv or os.environ.get("EGRESSPROXY_NATIVE") == "0":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        sys.stderr.write("mypyc is not there: the flow path stays interpreted\n")
        return []
    # Our own settings of mypy ask for plugins and stubs that a build environment does not have.
    options = ["--config-file=", "--ignore-missing-imports", *FLOW_PATH]
    extensions = mypycify(options, opt_level="3", debug_level="0")
    for extension in extensions:
        extension.optional = True  # no compiler, no Python.h: a warning
    return extensions


setup(ext_modules=compiled())

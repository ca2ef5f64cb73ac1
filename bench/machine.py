"""What was measured on and with: the machine in a line, and the versions of all data planes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.peers import envoy, mitmproxy

_CPUS: Final = Path("/proc/cpuinfo")
_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)?")
_COMMANDS: Final = {
    "HAProxy": ("haproxy", "-v"),
    "nginx": ("nginx", "-v"),
    "Squid": ("squid", "-v"),
    "sniproxy": ("sniproxy", "-V"),
    "Envoy": (str(envoy.PROGRAM), "--version"),
    "mitmproxy": (str(mitmproxy.PROGRAM), "--version"),
}


def machine() -> str:
    """CPUs, kernel and our Python, in one line."""
    models = re.findall(r"model name\s*:\s*(.+)", _CPUS.read_text())
    model = f" ({models[0]})" if models else ""
    virtual = ", a virtual machine" if "hypervisor" in _CPUS.read_text() else ""
    return (
        f"{os.cpu_count()} CPUs{model}{virtual}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def versions() -> dict[str, str]:
    """Data plane to the version that is installed here; those that are not are left out."""
    found = {"egressproxy": importlib.metadata.version("egressproxy")}
    for name, argv in _COMMANDS.items():
        if shutil.which(argv[0]):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            if version := _VERSION.search(done.stdout + done.stderr):
                found[name] = version[0]
    return found

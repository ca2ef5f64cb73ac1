"""skopeo on its own files, so that what this machine is set up for does not matter to the lab."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def skopeo(directory: Path) -> tuple[str, ...]:
    """The start of a skopeo command line whose files are all below the lab's folder.

    An empty ``--registries.d`` is not enough: to look for signatures skopeo then opens
    /var/lib/containers/sigstore wherever it believes to be root, and in a user namespace it may
    not (containers-registries.d(5)). ``sigstore`` is the key that old and new releases read.
    """
    home = directory / "skopeo"
    registries, temporary = home / "registries.d", home / "tmp"
    for folder in (registries, temporary, home / "signatures"):
        folder.mkdir(parents=True, exist_ok=True)
    signatures = {"default-docker": {"sigstore": (home / "signatures").as_uri()}}
    (registries / "default.yaml").write_text(json.dumps(signatures))
    policy = home / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    own = (f"{name}={home}" for name in ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"))
    return (
        *("env", "-u", "REGISTRY_AUTH_FILE", *own, "skopeo"),
        *("--policy", str(policy), "--registries.d", str(registries)),
        *("--tmpdir", str(temporary)),
    )

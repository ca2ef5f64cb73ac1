"""Machines made of files, and what a check found on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.doctor.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from egressproxy.doctor.finding import Finding

NOW = 1_800_000_000.0


def machine(root: Path, files: dict[str, str], printed: str | None = None) -> Machine:
    """A machine with these files; every program prints ``printed``."""
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return Machine(root=root, run=lambda _: printed, now=lambda: NOW)


def sysctls(**values: object) -> dict[str, str]:
    """``net__ipv4__ip_forward=1`` as the file of /proc/sys."""
    return {f"proc/sys/{n.replace('__', '/')}": f"{v}\n" for n, v in values.items()}


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    """How each check came out; one that is not well says why, and what to do."""
    found = {}
    for each in findings:
        assert each.check not in found
        assert each.seen
        if each.level != "ok":
            assert each.why, each
            assert each.fix, each
        found[each.check] = str(each.level)
    return found

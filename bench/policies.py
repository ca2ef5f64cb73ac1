"""Policies of any number of names, half of them exact and half wildcards, none like another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "version: 1\ncloud: AzureCloud\n"
_RULE = "rules:\n  - {name: names, to: ['list:names.txt'], ports: [https]}\n"


def exact_name(number: int) -> str:
    """The exact name of a number."""
    return f"host{number}.zone{number % 997}.example.com"


def wildcard(number: int) -> str:
    """The wildcard of a number: ``*.wild7.example.net``."""
    return f"*.wild{number}.example.net"


def below(number: int, label: str) -> str:
    """A name that the wildcard of a number means, two labels deep."""
    return f"{label}.b{wildcard(number)[1:]}"


def names(size: int) -> list[str]:
    """``size`` names, exact ones first."""
    half = size // 2
    return [exact_name(n) for n in range(size - half)] + [wildcard(n) for n in range(half)]


def write_policy_of(size: int, folder: Path, head: str = HEAD) -> Path:
    """A policy whose one rule, after whatever ``head`` has, is a list of ``size`` names."""
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names(size)))
    path = folder / "policy.yaml"
    path.write_text(head + _RULE)
    return path

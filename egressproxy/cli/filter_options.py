"""The options that choose flows, alike for every command that reviews them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import click

from egressproxy.review.ask import KEYS, read_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from egressproxy.review.model import Filter

_OPTIONS: Final = {
    "since": ("TIME", "From: 15m, 24h, 7d back, today, 2026-12-31, 2026-12-31T08:00Z."),
    "until": ("TIME", "Up to then; a day is meant with its end."),
    "from": ("SOURCE", "Clients: an address, a range, or a source group of the policy."),
    "name": ("NAME", "Names: exact, or with * for any text (*.azure.com, md-*); or an address."),
    "reason": ("REASON", "Reasons, as in the log: default_deny, no_sni."),
    "rule": ("RULE", "Rules by their id, with * for any text (aks/core*)."),
    "port": ("PORT", "Destination ports, as numbers."),
    "plane": ("PLANE", "explicit, transparent or network."),
    "class": ("CLASS", "Classes: suspicious, missing-requirement, near-miss, unknown, optional,"
              " harmless."),
    "gateway": ("NAME", "Gateways, in a store of several."),
}  # fmt: skip


def filter_options(
    *, since: str | None = None, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of ``_OPTIONS``, and its function their ``texts``.

    Each may be given more than once, or with commas; all conditions hold at once.

    Args:
        since: the default of ``--since``.
        without: options that make no sense for it.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_texts(*args: Any, **kwargs: Any) -> None:
            texts = {key: list(kwargs.pop(f"where_{key}", ())) for key in KEYS}
            command(*args, texts=texts, **kwargs)

        found: Callable[..., None] = with_texts
        for key, (metavar, text) in reversed(_OPTIONS.items()):
            if key in without:
                continue
            default = [since] if key == "since" and since else None
            option = click.option(
                f"--{key}",
                f"where_{key}",
                multiple=True,
                metavar=metavar,
                default=default,
                help=f"{text} Default: {since}." if default else text,
            )
            found = option(found)
        return found

    return decorate


def filter_of(texts: Mapping[str, Sequence[str]], now: float, **more: str) -> Filter:
    """The filter that options mean; ``more`` are texts that are the command's own (``action``).

    Raises:
        click.UsageError: with every condition that cannot be read.
    """
    where, problems = read_filter({**texts, **{key: [text] for key, text in more.items()}}, now)
    if problems:
        raise click.UsageError("\n       ".join(f"--{problem}" for problem in problems))
    return where

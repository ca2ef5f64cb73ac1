"""The classifier that commands judge denies with: of a policy file, or of what records say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.review.behaviour import observe_behaviour
from egressproxy.review.classify import Classifier

if TYPE_CHECKING:
    from egressproxy.review.model import Filter
    from egressproxy.review.store import Store

policy_option: Final = click.option(
    "--policy",
    "policy_file",
    envvar="EGRESSPROXY_POLICY",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Classes as this policy sees it now; without it, as when the records were written.",
)


def classifier_of(
    store: Store, where: Filter, policy_file: Path | None, *, allow_outside: bool, now: float
) -> Classifier:
    """A classifier for what a filter means; what sources did is looked at in its whole span.

    Raises:
        PolicyError: the policy cannot be read.
        StoreError: the store cannot.
    """
    policy = None
    if policy_file is not None:
        policy = load_policy(policy_file, allow_outside=allow_outside)
    ruleset = compile_policy(policy) if policy else None
    behaviour = observe_behaviour(store, where.since, where.until)
    return Classifier(policy, ruleset, behaviour, now=now)

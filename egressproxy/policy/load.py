"""From a policy file to a ``Policy``: the one way in, with every problem at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from egressproxy.policy.digest import digest
from egressproxy.policy.files import Folder
from egressproxy.policy.include import Tree
from egressproxy.policy.problems import Problems, StopLoadingError
from egressproxy.policy.references import References
from egressproxy.policy.required import required_rules
from egressproxy.policy.rules import DEFAULT_WARN_WINDOW_S, Mode, OnReload, Policy, Refusal
from egressproxy.policy.written import Context, Defaults, written_rules

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.document import Document
    from egressproxy.policy.problems import Report
    from egressproxy.policy.rules import Rule

FILE_NAME: Final = "policy.yaml"
"""The root file of a folder."""


def load_policy(
    path: Path, *, allow_outside: bool = False, service_tags: Path | None = None
) -> Policy:
    """Read a policy with its includes, lists, service tags and requirements.

    Args:
        path: the root file, or a folder (a mounted ConfigMap) that has it as ``policy.yaml``; what
            it names must be in its folder or below.
        allow_outside: files elsewhere may be named too.
        service_tags: this service tag file instead of the policy's own, wherever it lies.

    Raises:
        PolicyError: with every problem, in order of file, line and column.
    """
    path = _root_file(path)
    problems, folder = Problems(), Folder(path.parent, allow_outside)
    try:
        policy = _load(path, folder, problems, service_tags)
    except StopLoadingError:
        policy = None
    if policy is None:
        raise problems.error(folder.looked_for)
    return policy


def find_tag_file(path: Path, *, allow_outside: bool = False) -> Path | None:
    """Where the service tag file is that a policy names, whatever else is wrong with the policy.

    Raises:
        PolicyError: the policy cannot be read, or there is no such file.
    """
    path = _root_file(path)
    problems = Problems()
    folder = Folder(path.parent, allow_outside)
    tree = Tree(folder, problems)
    document = tree.read_root(path)
    if document is None:
        raise problems.error(folder.looked_for)
    if document.service_tags is None:
        return None
    at, report = document.service_tags.node, tree.parts[0].report
    found = folder.find(document.service_tags.value, path, at, report)
    if found is None:
        raise problems.error(folder.looked_for)
    return found


def _root_file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _load(
    path: Path, folder: Folder, problems: Problems, service_tags: Path | None
) -> Policy | None:
    tree = Tree(folder, problems)
    document = tree.read_root(path)
    if document is None:
        return None
    references = References(folder, problems)
    references.read_tags(document, path, tree.parts[0].report, instead=service_tags)
    rules = _rules(document, tree, references)
    if problems.found:
        return None
    policy = _policy(document, tree, rules, tuple(folder.looked_for))
    return replace(policy, service_tags=references.edition, digest=digest(policy))


def _rules(document: Document, tree: Tree, references: References) -> tuple[Rule, ...]:
    if document.audit_until is not None and not _is_audit(document):
        what = "audit_until without audit"
        tree.parts[0].report.add(document.audit_until.node, what, "add mode: audit")
    _check_warning(document, tree.parts[0].report)
    cloud = document.cloud.value if document.cloud is not None else None
    context = Context(references, Defaults.of(document), cloud)
    rules = [rule for part in tree.parts for rule in written_rules(part, context)]
    return (*rules, *required_rules(tree.parts, context))


def _check_warning(document: Document, report: Report) -> None:
    mode = document.mode
    if mode is not None and mode.value is Mode.WARN_ON_NEW:
        if document.warn_until is None:
            what = "warn-on-new without warn_until: it has to end"
            report.add(mode.node, what, "add warn_until: 2026-12-31, its last day (UTC)")
        return
    for name in ("warn_until", "warn_window"):
        if (found := getattr(document, name)) is not None:
            report.add(found.node, f"{name} without warn-on-new", "add mode: warn-on-new")


def _is_audit(document: Document) -> bool:
    return document.mode is not None and document.mode.value is Mode.AUDIT


def _policy(
    document: Document, tree: Tree, rules: tuple[Rule, ...], files: tuple[Path, ...]
) -> Policy:
    defaults = Defaults.of(document)
    listed = (entry.id.value for part in tree.parts for entry in part.document.requirements or ())
    return Policy(
        cloud=document.cloud.value if document.cloud else "",
        rules=rules,
        sources=tuple(sorted(tree.groups.networks.items())),
        requirements=tuple(dict.fromkeys(listed)),
        files=files,
        digest="",
        mode=document.mode.value if document.mode else Mode.ENFORCE,
        audit_until=document.audit_until.value if document.audit_until else None,
        warn_until=document.warn_until.value if document.warn_until else None,
        warn_window_s=document.warn_window.value if document.warn_window else DEFAULT_WARN_WINDOW_S,
        destination=defaults.destination,
        ech=defaults.ech,
        refusal=document.refusal.value if document.refusal else Refusal.ALERT,
        on_reload=document.on_reload.value if document.on_reload else OnReload.CLOSE,
        accept=tuple(dict.fromkeys(item.value for item in document.accept or ())),
        parameters=tuple((n, at.value) for n, at in tree.parts[0].scope.parameters.items()),
    )

"""The tags and lists that rules refer to; each file is read once a load."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from egressproxy.policy.lists import MAX_LIST_BYTES, parse_list
from egressproxy.policy.tag_edition import TagEdition, edition
from egressproxy.policy.tags import MAX_TAG_BYTES, ServiceTags, parse_tags

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.document import Document
    from egressproxy.policy.files import Folder
    from egressproxy.policy.networks import Network
    from egressproxy.policy.problems import Marked, Problems, Report
    from egressproxy.policy.rules import NameList


@dataclass(slots=True)
class References:
    """Resolves ``tag:`` and ``list:``.

    ``tags`` is ``None`` where the policy names no readable service tag file; ``has_tags`` is
    whether it names one at all; ``edition`` is which one was read.
    """

    folder: Folder
    problems: Problems
    tags: ServiceTags | None = None
    has_tags: bool = False
    edition: TagEdition | None = None
    _lists: dict[Path, NameList | None] = field(default_factory=dict)

    def read_tags(
        self, document: Document, beside: Path, report: Report, *, instead: Path | None
    ) -> None:
        """Read the policy's service tag file, if it names one, or the file ``instead``."""
        at = None
        path = instead
        if path is None and document.service_tags is not None:
            self.has_tags = True
            at = document.service_tags.node
            path = self.folder.find(document.service_tags.value, beside, at, report)
        if path is None:
            return
        self.has_tags = True
        of_file = self.problems.of(path)
        data = self.folder.read(path, MAX_TAG_BYTES, at, report if at is not None else of_file)
        if data is None:
            return
        cloud = document.cloud.value if document.cloud is not None else None
        self.tags = parse_tags(data, cloud, of_file)
        if self.tags is not None:
            number = self.tags.change_number
            self.edition = edition(path, self.tags.cloud, number, now=time.time())

    def networks(
        self, tag: str, at: Marked, report: Report, *, wanted_by: str
    ) -> tuple[Network, ...]:
        """The ranges of a tag; empty, and a problem, where they are not to be had."""
        if self.tags is not None:
            return self.tags.networks(tag, at, report)
        if not self.has_tags:
            report.add(
                at,
                f"{wanted_by} service tag {tag}, and the policy names no service tag file",
                "add service_tags: ServiceTags_Public.json, Microsoft's weekly file, unmodified",
            )
        return ()

    def names(self, name: str, beside: Path, at: Marked, report: Report) -> NameList | None:
        """The entries of a list file."""
        path = self.folder.find(name, beside, at, report)
        if path is None:
            return None
        if path not in self._lists:
            data = self.folder.read(path, MAX_LIST_BYTES, at, report)
            self._lists[path] = (
                parse_list(data, path, self.problems.of(path)) if data is not None else None
            )
        return self._lists[path]

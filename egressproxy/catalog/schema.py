"""The shape of the catalog's YAML files; a key that is not here is refused.

A row is written once and spread over clouds: ``names``, ``section`` and ``ours`` may each be one
value for all clouds or a mapping from cloud to value. ``not_needed`` is always bound to clouds,
because the documents exempt in one cloud only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Cloud = Literal["AzureCloud", "AzureChinaCloud", "AzureUSGovernment"]
Text = Annotated[str, StringConstraints(min_length=3, strip_whitespace=True)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
RequirementId = Annotated[str, StringConstraints(pattern=r"^([a-z]+/)?[a-z0-9]+(-[a-z0-9]+)*$")]
Texts = Annotated[list[Text], Field(min_length=1)]


class Strict(BaseModel):
    """No unknown key, no conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class IndexFile(Strict):
    """``index.yaml``: document titles by key, and the files in reading order."""

    documents: dict[Slug, Text]
    files: Texts


class WrittenExemption(Strict):
    """When a row is not needed; ``flag`` names the parameter that leaves it out."""

    text: Text
    flag: Text | None = None
    since: Text | None = None


class WrittenRow(Strict):
    """One row, before it is spread over clouds."""

    id: Slug
    names: Texts | dict[Cloud, Texts] | None = None
    tags: Texts | None = None
    networks_from: Text | None = None
    any_destination: Literal[True] | None = None
    ports: Texts
    purpose: Text
    clouds: list[Cloud] | None = None
    document: Slug | None = None
    section: Text | dict[Cloud, Text] | None = None
    kind: Literal["required", "optional", "harmless"] | None = None
    group: Slug | None = None
    via: Slug | None = None
    when: dict[str, str | bool] = {}
    narrowed_by: Text | None = None
    not_needed: dict[Cloud, list[WrittenExemption]] = {}
    ours: Text | dict[Cloud, Text] | None = None
    since: Text | None = None
    note: Text | None = None
    suggested: bool = True
    symptom: Text | dict[Cloud, Text] | None = None


class WrittenVia(Strict):
    """The alternatives; without ``default`` a policy must choose."""

    default: Slug | None = None
    choices: dict[Slug, Text]


class WrittenRequirement(Strict):
    """One requirement with what its rows share."""

    id: RequirementId
    title: Text
    document: Slug
    section: Text | dict[Cloud, Text]
    kind: Literal["required", "optional"] = "required"
    clouds: list[Cloud] | None = None
    via: WrittenVia | None = None
    absent: dict[Cloud, Text] = {}
    warning: Text | None = None
    refers_to: RequirementId | None = None
    rows: list[WrittenRow] = []


class RequirementsFile(Strict):
    """Any other file."""

    requirements: Annotated[list[WrittenRequirement], Field(min_length=1)]

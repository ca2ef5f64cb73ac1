"""Documentation that cannot fall behind: generated, run, or held to the code."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import pytest
from click.testing import CliRunner

from egressproxy.catalog import load_catalog
from egressproxy.catalog.parameters import PARAMETERS
from egressproxy.cli.main import cli
from egressproxy.cli.run import NAMES
from egressproxy.export.azure import azure_row
from egressproxy.export.otlp import attributes, sentence
from egressproxy.observe.read import read_line
from egressproxy.observe.record import FlowRecord, Plane, to_json_line
from egressproxy.policy.load import load_policy
from egressproxy.policy.verdict import Action, Reason
from egressproxy.service.configuration import Problems, read_config
from egressproxy.service.firewall_configuration import FIREWALL_NAMES
from egressproxy.settings import Settings
from lab.programs import missing
from tests import reference
from tests.policy.tag_file import CUT, tag_file

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
REFERENCE: Final = DOCS / "reference.md"
PAGES: Final = tuple(
    sorted(path for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")) if ".venv" not in str(path))
)
_FENCE: Final = re.compile(r"^```([a-z]+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_NEXT_WEEK: Final = CUT | {
    ("Sql.JapanEast", "japaneast"): ("20.191.166.0/25", "2603:1040:404::/46"),
}
_TAG_FILES: Final = {
    "ServiceTags_Public.json": tag_file(),
    "ServiceTags_Public_20251013.json": tag_file(),
    "ServiceTags_Public_20251020.json": tag_file(_NEXT_WEEK, change_number=375),
}


@dataclass(frozen=True)
class Block:
    """A fenced block; ``name`` is the file it stands for, or empty."""

    page: Path
    line: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2] or "", found[3])


BLOCKS: Final = tuple(block for page in PAGES for block in blocks(page))
POLICIES: Final = [
    block
    for block in BLOCKS
    if block.language == "yaml" and re.search(r"^version:", block.text, re.MULTILINE)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every named block of policy.md, and service tag files."""
    for block in blocks(DOCS / "policy.md"):
        if block.name:
            (tmp_path / block.name).write_text(block.text)
    for name, text in _TAG_FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_golden_reference(request: pytest.FixtureRequest) -> None:
    text = reference.reference()
    if request.config.getoption("--update-golden"):
        REFERENCE.write_text(text)
    assert text == REFERENCE.read_text(), "docs/reference.md differs: make golden, read the diff"


# What the docs say holds


@pytest.mark.parametrize("block", POLICIES, ids=str)
def test_every_policy_in_the_docs_is_judged_as_the_docs_say(block: Block, folder: Path) -> None:
    file = folder / "block.yaml"
    file.write_text(block.text)
    done = CliRunner().invoke(cli, ["policy", "validate", str(file)], catch_exceptions=False)
    assert (done.exit_code == 0) is (block.name != "bad.yaml"), done.output


def test_policies_are_found_in_the_docs() -> None:
    assert len(POLICIES) > 5


@pytest.mark.parametrize(
    ("name", "known"), [("config.yaml", NAMES), ("up.yaml", NAMES | FIREWALL_NAMES)]
)
def test_config_file_of_the_docs_is_read(name: str, known: frozenset[str], tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks(DOCS / "operations.md") if block.name == name)
    (tmp_path / name).write_text(text)
    problems = Problems()
    assert read_config(tmp_path / name, known, problems)
    problems.raise_all()


CONSOLES: Final = [block for block in BLOCKS if block.language == "console"]


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_consoles_show_what_the_commands_print(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for command, shown in _transcript(block.text):
        if command.startswith("egressproxy init "):  # what follows is about the file it writes
            CliRunner().invoke(cli, [*command.split()[1:], "--force"], catch_exceptions=False)
        if not command.startswith("egressproxy ") or not shown:
            continue
        done = CliRunner().invoke(cli, command.split()[1:], catch_exceptions=False)
        assert done.output == shown, f"{block}: $ {command}"


def _transcript(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in ("console", "sh")], ids=str
)
def test_commands_in_the_docs_exist(block: Block) -> None:
    for found in re.finditer(
        r"(?:^|[\s/])egressproxy ([a-z]+(?: [a-z]+)?)((?: .*)?)$", block.text, re.M
    ):
        command, options = _command(found[1].split())
        for option in re.findall(r"(?<=\s)--[a-z-]+", found[2]):
            assert option in options, f"{block}: {command} has no {option}"


@pytest.mark.skipif(bool(missing("jq")), reason="needs jq")
def test_deny_summary_of_the_docs_names_every_deny(tmp_path: Path) -> None:
    """A client that never said what it wants has neither name nor address."""
    (block,) = [block for block in BLOCKS if "would_deny" in block.text and block.language == "sh"]
    record = FlowRecord(
        0.0, "f", 1, Action.DENY, Reason.DEFAULT_DENY, Plane.EXPLICIT, "tls", "10.1.0.4", 443
    )
    records = (
        record._replace(name="a.example", dst_ip="192.0.2.1"),
        record._replace(name="a.example", count=2),
        record._replace(dst_ip="192.0.2.1", note="harmless"),
        record._replace(dst_port=0, reason=Reason.HELLO_TIMEOUT),
        record._replace(name="b.example", action=Action.ALLOW, would_deny=True),
    )
    (tmp_path / "flows.jsonl").write_bytes(b"".join(map(to_json_line, records)))
    done = subprocess.run(
        ["sh", "-c", block.text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    assert {line.strip() for line in done.stdout.splitlines()} == {
        "3\ta.example:443\tdefault_deny",
        "1\t192.0.2.1:443\tdefault_deny\tharmless",
        "1\tfrom 10.1.0.4:0\thello_timeout",
        "1 b.example\t443\tdefault_deny",
    }


@pytest.mark.skipif(bool(missing("jq")), reason="needs jq")
def test_batch_table_of_the_readme_has_the_denied_alone(folder: Path) -> None:
    (text,) = [
        block.text for block in BLOCKS if "check --batch" in block.text and "jq" in block.text
    ]
    (program,) = re.findall(r"jq -r '([^']+)'", text)
    policy = folder / "policy.yaml"
    policy.write_text(LAB_POLICY)
    asked = "www.contoso.example 443\nb.example 443\n192.0.2.9 22\nnonsense\n"
    answers = CliRunner().invoke(cli, ["check", "--batch", "--policy", str(policy)], input=asked)
    done = subprocess.run(
        ["jq", "-r", program], input=answers.output, capture_output=True, text=True, check=True
    )
    rows = [line.split("\t")[:4] for line in done.stdout.splitlines()]
    assert rows == [
        ["b.example", "tls", "443", "default_deny"],
        ["192.0.2.9", "tcp", "22", "default_deny"],
    ]


def _examples() -> dict[str, str]:
    return {block.name: block.text for block in blocks(DOCS / "export.md") if block.name}


@pytest.mark.parametrize("form", ["azure", "syslog"])
def test_exports_of_the_docs_are_what_is_written(form: str, tmp_path: Path) -> None:
    log = tmp_path / "flows.jsonl"
    log.write_text(_examples()["flows.jsonl"])
    asked = ["export", "--format", form, "--gateway", "hub-1", str(log)]
    assert CliRunner().invoke(cli, asked, catch_exceptions=False).output == _examples()[form]


def test_attributes_of_the_docs_are_those_of_the_first_record() -> None:
    record = read_line(_examples()["flows.jsonl"].splitlines()[0].encode())
    assert record is not None
    expected = {"body": sentence(record), "attributes": attributes(record)}
    assert json.loads(_examples()["otlp"]) == expected


def test_data_collection_rule_has_every_column_that_is_written() -> None:
    """And no other but those that a row has where it stands for several, and the agent's own."""
    file = ROOT / "deploy" / "azure-monitor" / "data-collection-rule.json"
    properties = json.loads(file.read_text())["properties"]
    record = FlowRecord(
        0.0,
        "f",
        1,
        Action.DENY,
        Reason.DEFAULT_DENY,
        Plane.NETWORK,
        "tls",
        "10.1.0.4",
        443,
        count=2,
    )
    rows = (record, record._replace(protocol="udp"), record._replace(reason=Reason.DNS_REFUSED))
    for row in map(azure_row, rows):
        table = row.pop("Type")
        columns = properties["streamDeclarations"][f"Custom-{table}"]["columns"]
        assert {each["name"] for each in columns} == row.keys() | {"Computer"}
        (source,) = [
            each for each in properties["dataSources"]["logFiles"] if each["name"] == table
        ]
        (flow,) = [each for each in properties["dataFlows"] if each["streams"] == source["streams"]]
        assert source["streams"] == [f"Custom-{table}"]
        assert source["filePatterns"][0].endswith(f"/{table}.json")
        assert flow["outputStream"] == f"Custom-{table}_CL"


def _command(words: list[str]) -> tuple[str, set[str]]:
    known = {path: command for path, command, _ in reference.commands()}
    for size in (2, 1):
        path = " ".join(["egressproxy", *words[:size]])
        if path in known and not isinstance(known[path], click.Group):
            return path, {name for each in known[path].params for name in each.opts}
    pytest.fail(f"there is no command egressproxy {' '.join(words)}")


def test_readme_names_only_commands_that_exist() -> None:
    names = {path.split()[1] for path, _, _ in reference.commands() if " " in path}
    text = (ROOT / "README.md").read_text()
    for found in re.finditer(r"(?:^\$ |^|`)egressproxy ([a-z]+)", text, re.MULTILINE):
        assert found[1] in names


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^\$ )make ([a-z]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation gone, spaces to hyphens."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


LAB_POLICY: Final = """\
version: 1
cloud: AzureCloud
rules:
  - {name: contoso, to: [www.contoso.example], ports: [https, http]}
  - {name: api, to: [20.1.2.3], ports: ["tcp:443"]}
"""


# What the code has is in the docs


def _pages(*names: str) -> str:
    return "\n".join((DOCS / name).read_text() for name in names)


def test_every_command_and_option_is_documented() -> None:
    text = REFERENCE.read_text()
    for path, command, _ in reference.commands():
        assert f"### `{path}`" in text
        for parameter in command.params:
            assert max(parameter.opts, key=len) in text or isinstance(parameter, click.Argument)


def test_every_task_option_of_run_and_up_is_in_operations() -> None:
    text = _pages("operations.md")
    limits = {limit.name for limit in fields(Settings)}
    lacking = [
        n for n in (NAMES | FIREWALL_NAMES) - limits if f"--{n.replace('_', '-')}" not in text
    ]
    assert not lacking


def test_every_setting_is_documented() -> None:
    text = REFERENCE.read_text()
    assert not [limit.name for limit in fields(Settings) if f"| `{limit.name}` |" not in text]


@pytest.mark.parametrize("name", ["reference.md", "operations.md"])
def test_every_reason_is_documented(name: str) -> None:
    text = _pages(name)
    assert not [reason for reason in Reason if f"`{reason}`" not in text]


def test_every_reason_says_what_it_means() -> None:
    assert all(reference.member_docs(Reason).values())


def test_every_record_field_is_documented() -> None:
    text = _pages("operations.md")
    assert not [field for field in reference.record_fields() if f"`{field}`" not in text]


def test_every_metric_is_documented() -> None:
    text = REFERENCE.read_text()
    assert not [m.name for m in reference.metrics() if f"`{reference.exposed_name(m)}`" not in text]


def test_metrics_in_the_docs_exist() -> None:
    known = {reference.exposed_name(metric) for metric in reference.metrics()}
    for page in PAGES:
        named = set(re.findall(r"`(egressproxy_[a-z_]+)`", page.read_text()))
        assert named <= known, page.name


def test_every_admin_page_is_documented() -> None:
    assert set(reference.admin_pages()) == reference.admin_routes()
    text = _pages("operations.md")
    assert not [path for _, path in reference.admin_routes() if f"`{path}`" not in text]


def test_every_policy_key_is_explained() -> None:
    text = _pages("policy.md")
    keys = {key for keys in reference.policy_keys().values() for key in keys}
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", text)]


def test_every_parameter_and_requirement_is_documented() -> None:
    text = REFERENCE.read_text()
    names = [*PARAMETERS, *(requirement.id for requirement in load_catalog().requirements)]
    assert not [name for name in names if f"| `{name}` |" not in text]


def test_every_ready_policy_is_listed() -> None:
    text = (ROOT / "policies" / "README.md").read_text()
    assert not [p.name for p in (ROOT / "policies").glob("*.yaml") if f"({p.name})" not in text]


def test_what_is_called_reserved_is_given_by_nothing() -> None:
    """Records of others may have it, so those who explain and review records know it."""
    givers = ("kernel", "planes", "resolve", "service", "wire")
    sources = [path for each in givers for path in (ROOT / "egressproxy" / each).rglob("*.py")]
    assert sources
    for member in reference.NOT_YET_REASONS:
        word = f"{type(member).__name__}.{member.name}"
        users = [path.name for path in sources if word in path.read_text()]
        assert not users, f"{word} is given now: say so in tests/reference.py"


def test_policies_in_the_docs_load_the_same_from_python(folder: Path) -> None:
    assert [rule.id for rule in load_policy(folder / "with-teams.yaml").rules] == [
        "team-a.yaml/rules/charts",
        "team-b.yaml/rules/builds",
    ]


def test_code_map_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("## Where to go for what") : text.index("## The life of a connection")]
    words = set(re.findall(r"[a-z_0-9]+", table))
    whole = set(re.findall(r"`([a-z]+)/`", table))
    lacking = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "egressproxy").rglob("*.py")
        if not path.name.startswith("__")
        and path.parent.name not in whole
        and path.stem not in words
    ]
    assert not lacking


def test_layers_in_architecture_are_the_enforced_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = text[text.index("```\ncli\n") :].split("```")[1].split("\n")
    enforced = [layer.replace("(review) | ", "") for layer in layers]
    assert [line.partition("  ")[0] for line in drawn if line] == enforced

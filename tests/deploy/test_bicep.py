"""deploy/bicep: parsed, held to itself and to what the machines are given; Azure is not here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import tree_sitter_bicep
import yaml
from tree_sitter import Language, Parser

from tests import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "bicep"
MAIN: Final = FOLDER / "main.bicep"
FILES: Final = sorted(FOLDER.rglob("*.bicep"))
PARAMETER_FILE: Final = FOLDER / "main.bicepparam"
PARSER: Final = Parser(Language(tree_sitter_bicep.language()))
DECLARATIONS: Final = {
    f"{kind}_declaration": kind
    for kind in ("parameter", "variable", "resource", "module", "type", "output")
}
FUNCTIONS: Final = {
    "base64",
    "empty",
    "guid",
    "join",
    "loadTextContent",
    "map",
    "replace",
    "resourceGroup",
    "resourceId",
    "string",
    "subscriptionResourceId",
}
"""Of Bicep's own, those that are used; a misspelt one is not among them."""
DECORATORS: Final = {"description", "allowed", "minLength", "maxLength", "minValue", "secure"}
API: Final = re.compile(r"(Microsoft\.[A-Za-z]+(?:/[A-Za-z]+)+)@(20\d\d-[01]\d-[0-3]\d)")
"""Released versions only: no preview may vanish under a deployment."""


def shown(path: Path) -> str:
    return str(path.relative_to(FOLDER))


def parsed(source: bytes) -> Node:
    return PARSER.parse(source).root_node


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode()


def first_identifier(node: Node) -> str:
    return text(next(child for child in node.children if child.type == "identifier"))


@dataclass(frozen=True)
class Template:
    """What a file declares: kind to names; of parameters, those that have no default."""

    path: Path
    root: Node
    names: dict[str, set[str]]
    required: set[str]

    @property
    def symbols(self) -> set[str]:
        return set().union(*(names for kind, names in self.names.items() if kind != "output"))


def template(path: Path) -> Template:
    root = parsed(path.read_bytes())
    names: dict[str, set[str]] = {kind: set() for kind in DECLARATIONS.values()}
    required = set()
    for node in walk(root):
        if kind := DECLARATIONS.get(node.type):
            names[kind].add(first_identifier(node))
        if node.type == "parameter_declaration" and not any(c.type == "=" for c in node.children):
            required.add(first_identifier(node))
    return Template(path, root, names, required)


TEMPLATES: Final = {path: template(path) for path in FILES}


def used_symbols(root: Node) -> Iterator[Node]:
    """Identifiers that name something declared: not keys, functions, or the declared names."""
    for node in walk(root):
        parent = node.parent
        if node.type != "identifier" or parent is None:
            continue
        is_first = node == next(c for c in parent.children if c.type == "identifier")
        if parent.type in DECLARATIONS and is_first:
            continue
        if parent.type == "object_property" and node == parent.children[0]:
            continue
        if parent.type == "call_expression" and is_first:
            continue
        yield node


def bound_around(node: Node) -> set[str]:
    """Loop variables and lambda parameters that are in scope at a node."""
    found: set[str] = set()
    around = node.parent
    while around is not None:
        if around.type == "for_statement":
            head = takewhile(lambda child: child.type != "in", around.children)
            found |= {text(each) for child in head for each in walk(child)}
        if around.type == "lambda_expression":
            found.add(first_identifier(around))
        around = around.parent
    return found


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_templates_parse(path: Path) -> None:
    wrong = [n for n in walk(TEMPLATES[path].root) if n.is_error or n.is_missing]
    assert not [f"{n.start_point.row + 1}: {text(n)[:60]}" for n in wrong]


def test_the_parser_does_not_take_everything() -> None:
    assert parsed(b"param name string = {\n").has_error
    assert not list(used_symbols(parsed(b"param name string = 'a'\n")))


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_every_symbol_that_is_used_is_declared(path: Path) -> None:
    declared = TEMPLATES[path].symbols
    lacking = {
        f"{node.start_point.row + 1}: {text(node)}"
        for node in used_symbols(TEMPLATES[path].root)
        if text(node) not in declared | bound_around(node)
    }
    assert not lacking


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_everything_declared_is_used(path: Path) -> None:
    found = TEMPLATES[path]
    used = {text(node) for node in used_symbols(found.root)}
    idle = {  # these are there for themselves
        name
        for kind in ("resource", "module", "output")
        for name in found.names[kind]
        if "existing" not in _declaration(found, name)
    }
    assert not found.symbols - used - idle


def _declaration(found: Template, name: str) -> str:
    nodes = [n for n in walk(found.root) if n.type in DECLARATIONS and first_identifier(n) == name]
    return text(nodes[0]).partition("{")[0]


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_functions_and_decorators_are_bicep_s(path: Path) -> None:
    for node in walk(TEMPLATES[path].root):
        if node.type == "call_expression":
            known = DECORATORS if node.parent and node.parent.type == "decorator" else FUNCTIONS
            assert text(node.child_by_field_name("function")) in known


def test_api_versions_are_well_formed_and_one_a_type() -> None:
    versions: dict[str, set[str]] = {}
    for found in TEMPLATES.values():
        for node in walk(found.root):
            if node.type != "resource_declaration" or _is_nested(node):
                continue
            kind = API.fullmatch(text(_string(node)).strip("'"))
            assert kind, text(node)[:80]
            versions.setdefault(kind[1], set()).add(kind[2])
    assert len(versions) > 8
    assert not {kind for kind, several in versions.items() if len(several) > 1}


def _is_nested(node: Node) -> bool:
    return node.parent is not None and node.parent.type == "object_property"


def _string(node: Node) -> Node:
    return next(child for child in node.children if child.type == "string")


MODULES: Final = [n for n in walk(TEMPLATES[MAIN].root) if n.type == "module_declaration"]


@pytest.mark.parametrize("node", MODULES, ids=first_identifier)
def test_modules_are_given_what_they_declare(node: Node) -> None:
    path = (FOLDER / text(_string(node)).strip("'")).resolve()
    params = next(
        prop
        for prop in walk(node)
        if prop.type == "object_property" and text(prop.children[0]) == "params"
    )
    body = next(child for child in params.children if child.type == "object")
    given = {text(each.children[0]) for each in body.children if each.type == "object_property"}
    assert given <= TEMPLATES[path].names["parameter"]
    assert TEMPLATES[path].required <= given


def test_modules_give_what_is_asked_of_them() -> None:
    source = MAIN.read_text()
    files = {first_identifier(n): (FOLDER / text(_string(n)).strip("'")).resolve() for n in MODULES}
    asked = re.findall(r"(\w+)(?:\[i\])?\.outputs\.(\w+)", source)
    assert asked
    assert not [(m, o) for m, o in asked if o not in TEMPLATES[files[m]].names["output"]]
    assert set(files.values()) == set(FILES) - {MAIN}


def test_the_parameter_file_gives_what_main_requires() -> None:
    source = PARAMETER_FILE.read_text()
    assert source.startswith("using 'main.bicep'\n")
    # The grammar knows no parameter files: to it they are variables.
    root = parsed(re.sub(r"^using .*$", "", source, flags=re.M).replace("param ", "var ").encode())
    assert not root.has_error
    given = {first_identifier(n) for n in walk(root) if n.type == "variable_declaration"}
    assert given <= TEMPLATES[MAIN].names["parameter"]
    assert TEMPLATES[MAIN].required <= given


# What a gateway stands or falls with


def _gateway() -> str:
    return (FOLDER / "modules" / "gateway.bicep").read_text()


def test_the_interface_forwards_and_the_route_leads_to_it() -> None:
    spoke = (FOLDER / "modules" / "spoke.bicep").read_text()
    assert "enableIPForwarding: true" in _gateway()
    assert re.search(
        r"addressPrefix: '0\.0\.0\.0/0'\s+nextHopType: 'VirtualAppliance'\s+"
        r"nextHopIpAddress: nextHop\b",
        spoke,
    )
    assert re.search(r"routeTable: isRouted \? \{\s+id: routeTable\.id\s+\} : null", spoke)
    assert spoke.count("allowForwardedTraffic: true") == 2
    assert "outboundType: 'userDefinedRouting'" in (FOLDER / "modules/cluster.bicep").read_text()


def test_the_route_table_is_attached_before_a_cluster_and_not_with_the_gateway() -> None:
    source = MAIN.read_text()
    stages = re.search(r"@allowed\(\[('[^]]+)\]\)\nparam stage string = '(\w+)'", source)
    assert stages is not None
    assert stages[1] == "'gateway', 'routes', 'clusters'"
    assert stages[2] == "gateway"
    assert "isRouted: stage != 'gateway'" in source
    assert "stage == 'clusters'" in source


def test_strangers_are_denied_last() -> None:
    rules = re.findall(
        r"name: '(\w+)'\s+properties: \{[^}]*?priority: (\d+)[^}]*?access: '(\w+)'", _gateway()
    )
    assert [name for name, _, access in rules if access == "Deny"] == ["strangers"]
    assert max(rules, key=lambda rule: int(rule[1]))[0] == "strangers"
    assert len({priority for _, priority, _ in rules}) == len(rules) == 4


def test_health_is_asked_where_the_gateway_answers() -> None:
    path = re.search(r"requestPath: '([^']+)'", _gateway())
    port = re.search(r"param adminPort int = (\d+)", _gateway())
    assert path is not None
    assert port is not None
    assert path[1] in {page for _, page in reference.admin_routes()}
    for file in (ROOT / "deploy" / "cloud-init").glob("*.yaml"):
        written = yaml.safe_load(file.read_text())["write_files"]
        (config,) = (each["content"] for each in written if each["path"].endswith("config.yaml"))
        assert f'admin: ":{port[1]}"' in config
        assert "admin_token_file:" in config


def test_machines_are_given_the_cloud_init_of_their_system() -> None:
    source = MAIN.read_text()
    loaded = re.findall(r"loadTextContent\('([^']+)'\)", source)
    assert len(loaded) == 2
    filled = set(re.findall(r"'(@[A-Z0-9_]+@)'", source))
    for name in loaded:
        file = (FOLDER / name).resolve()
        assert set(re.findall(r"@[A-Z0-9_]+@", file.read_text())) == filled

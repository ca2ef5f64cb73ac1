"""From files to a ``Policy``: order, ids, includes, caps, requirements, digest."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import date
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressproxy.errors import PolicyError
from egressproxy.policy import include
from egressproxy.policy import problems as problems_module
from egressproxy.policy.files import Folder
from egressproxy.policy.load import load_policy
from egressproxy.policy.problems import MAX_PROBLEMS, Problems
from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal, SniCheck
from egressproxy.policy.verdict import Action
from egressproxy.policy.yaml_nodes import Scalar
from egressproxy.ports import parse_ports

if TYPE_CHECKING:
    from pathlib import Path

    from tests.policy.conftest import Finder, Loader

RULE = "rules: [{to: [%s.example.com], ports: [https]}]\n"


def test_a_whole_rule(load: Loader, tmp_path: Path) -> None:
    policy = load(
        """\
sources: {build: [10.241.4.0/24], lab: [10.9.0.0/16]}
rules:
  - name: all of it
    action: deny
    to: [a.example.com, "*.example.org", "list:names.txt", A.example.com]
    ports: [https, "http:8080", https]
    from: [lab, 192.0.2.7, build]
    until: 2026-12-31
    mode: audit
    audit_until: "2026-11-30"
    destination: strict
    sni: any-allowed
    ech: refuse
    addresses: [10.50.0.0/24, 10.0.0.0/8]
""",
        {"names.txt": "b.example.com\n"},
    )
    (rule,) = policy.rules
    assert rule.id == "rules/all of it"
    assert rule.action is Action.DENY
    assert [str(pattern) for pattern in rule.patterns] == ["a.example.com", "*.example.org"]
    assert rule.lists[0].entries == ("b.example.com",)
    assert rule.ports == (parse_ports("https"), parse_ports("http:8080"))
    assert rule.sources == tuple(map(ip_network, ("10.9.0.0/16", "10.241.4.0/24", "192.0.2.7/32")))
    assert rule.source_groups == ("lab", "build")
    assert (rule.until, rule.audit, rule.audit_until) == (
        date(2026, 12, 31),
        True,
        date(2026, 11, 30),
    )
    assert (rule.destination, rule.sni, rule.ech) == (
        Destination.STRICT,
        SniCheck.ANY_ALLOWED,
        Ech.REFUSE,
    )
    assert rule.addresses == (ip_network("10.0.0.0/8"), ip_network("10.50.0.0/24"))
    assert (rule.origin.file, rule.origin.line, rule.origin.column) == (
        str(tmp_path / "policy.yaml"),
        5,
        5,
    )
    assert policy.files == (tmp_path / "policy.yaml", tmp_path / "names.txt")


def test_the_policy_s_own_settings(load: Loader) -> None:
    policy = load(
        "mode: audit\naudit_until: 2026-12-31\ndestination: prefer-original\nech: refuse\n"
        "refusal: reset\non_reload: keep\nrequirements: [mcr]\n" + RULE % "a"
    )
    assert (policy.mode, policy.audit_until) == (Mode.AUDIT, date(2026, 12, 31))
    assert (policy.refusal, policy.on_reload) == (Refusal.RESET, OnReload.KEEP)
    assert {(rule.destination, rule.ech) for rule in policy.rules} == {
        (Destination.PREFER_ORIGINAL, Ech.REFUSE)
    }
    assert (policy.destination, policy.ech) == (Destination.PREFER_ORIGINAL, Ech.REFUSE)


@pytest.mark.parametrize(
    ("window", "seconds", "shown"),
    [("", 604800, "7d"), ("warn_window: 1h\n", 3600, "1h"), ("warn_window: 48h\n", 172800, "2d")],
)
def test_warn_on_new(load: Loader, window: str, seconds: int, shown: str) -> None:
    policy = load(f"mode: warn-on-new\nwarn_until: 2026-12-31\n{window}" + RULE % "a")
    assert (policy.mode, policy.warn_until) == (Mode.WARN_ON_NEW, date(2026, 12, 31))
    assert (policy.warn_window_s, policy.warn_window) == (seconds, shown)
    assert policy.audit_until is None


def test_defaults(load: Loader) -> None:
    policy = load("")
    assert (policy.mode, policy.destination, policy.ech, policy.refusal, policy.on_reload) == (
        Mode.ENFORCE,
        Destination.RESOLVE,
        Ech.ALLOW,
        Refusal.ALERT,
        OnReload.CLOSE,
    )


def test_order_and_ids_over_files(load: Loader) -> None:
    policy = load(
        "requirements: [mcr]\ninclude: [a.yaml, teams/b.yaml, a.yaml]\n"
        "rules:\n  - {name: one, to: [x.example.com], ports: [https]}\n"
        "  - {to: [y.example.com], ports: [https]}\n",
        {
            "a.yaml": RULE % "a" + "requirements: [aks/ubuntu-updates]\n",
            "teams/b.yaml": "include: [c.yaml]\n" + RULE % "b",
            "teams/c.yaml": RULE % "c",
        },
    )
    ids = [rule.id for rule in policy.rules]
    assert ids[:6] == [
        "rules/one",
        "rules/#2",
        "a.yaml/rules/#1",
        "teams/b.yaml/rules/#1",
        "teams/c.yaml/rules/#1",
        "a.yaml@2/rules/#1",
    ]
    assert ids[6].startswith("mcr#")
    assert len(set(ids)) == len(ids)
    assert policy.requirements == ("mcr", "aks/ubuntu-updates")


def test_requirement_listed_again_keeps_ids_apart(load: Loader) -> None:
    policy = load(
        "sources: {east: [10.1.0.0/16], west: [10.2.0.0/16]}\n"
        "requirements: [mcr, mcr: {from: [east]}, mcr: {from: [east, west]}, mcr: {from: [east]}]\n"
    )
    suffixes = dict.fromkeys(rule.id.partition("@")[2] for rule in policy.rules)
    assert list(suffixes) == ["1", "east", "east+west", "4"]
    assert policy.rules[-1].requirement == "mcr"
    assert policy.rules[-1].origin.document


def test_parameters_of_a_file_and_of_a_requirement(load: Loader) -> None:
    policy = load(
        "parameters: {location: japaneast, private_cluster: false}\n"
        "requirements: [aks/core, aks/core: {location: eastus}]\ninclude: [b.yaml]\n",
        {"b.yaml": "parameters: {location: westus}\nrequirements: [aks/core: ]\n"},
    )
    names = [str(p) for rule in policy.rules for p in rule.patterns if ".hcp." in str(p)]
    assert names == [f"*.hcp.{place}.azmk8s.io" for place in ("japaneast", "eastus", "westus")]
    assert policy.parameters == (("location", "japaneast"), ("private_cluster", False))


def test_private_link_addresses_of_a_requirement(load: Loader) -> None:
    policy = load("requirements: [acr: {registry: myregistry, addresses: [10.50.0.0/24]}]\n")
    assert {rule.addresses for rule in policy.rules} == {(ip_network("10.50.0.0/24"),)}


def test_include_with_from_caps_its_rules(load: Loader) -> None:
    policy = load(
        "sources: {build: [10.1.0.0/16]}\ninclude: [{file: b.yaml, from: [build, 'fd00::/8']}]\n",
        {
            "b.yaml": "sources: {all-of-it: [10.0.0.0/8], part: [10.1.2.0/24]}\nrules:\n"
            "  - {to: [a.example.com], ports: [https]}\n"
            "  - {to: [b.example.com], ports: [https], from: [all-of-it]}\n"
            "  - {to: [c.example.com], ports: [https], from: [part, build]}\n"
            "requirements: [mcr]\n",
        },
    )
    capped = tuple(map(ip_network, ("10.1.0.0/16", "fd00::/8")))
    assert [rule.sources for rule in policy.rules[:4]] == [
        capped,
        (ip_network("10.1.0.0/16"),),
        (ip_network("10.1.0.0/16"), ip_network("10.1.2.0/24")),
        capped,
    ]
    assert policy.rules[0].source_groups == ("build",)
    assert [name for name, _ in policy.sources] == ["all-of-it", "build", "part"]


def test_rule_outside_its_cap(problems: Finder) -> None:
    assert problems(
        "sources: {build: [10.1.0.0/16]}\ninclude: [{file: b.yaml, from: [build]}]\n",
        {"b.yaml": "rules: [{to: [a.example.com], ports: [https], from: [10.2.0.0/16]}]\n"},
    ) == [
        "b.yaml:1:54: these sources are all outside those that the include allows,"
        " hint: the including file allows build"
    ]


def test_unknown_cap_and_group_defined_twice(problems: Finder) -> None:
    assert problems(
        "sources: {build: [10.1.0.0/16]}\n"
        "include: [{file: b.yaml, from: [biuld]}, {from: [build]}]\n",
        {"b.yaml": "sources: {build: [10.2.0.0/16]}\n"},
    ) == [
        "policy.yaml:4:33: there is no source group 'biuld', hint: did you mean build?",
        "policy.yaml:4:42: an include lacks the key 'file',"
        " hint: file: a policy file, relative to this one",
        "b.yaml:1:11: source group 'build' is defined twice,"
        " hint: it is defined in policy.yaml:3: choose another name",
    ]


def test_only_the_root_sets_what_counts_for_all(problems: Finder) -> None:
    assert problems(
        "include: [b.yaml]\n", {"b.yaml": "mode: audit\ncloud: AzureCloud\nz: 1\n"}
    ) == [
        "b.yaml:1:1: 'mode' does not belong here,"
        " hint: only the root policy sets mode: remove it here",
        "b.yaml:2:1: 'cloud' does not belong here,"
        " hint: only the root policy sets cloud: remove it here",
        "b.yaml:3:1: unknown key 'z' in an included policy, hint: the keys are version,"
        " parameters, sources, requirements, rules, include",
    ]


def test_include_circle(problems: Finder) -> None:
    found = problems(
        "include: [b.yaml]\n", {"b.yaml": "include: [c.yaml]\n", "c.yaml": "include: [b.yaml]\n"}
    )
    assert found == [
        "c.yaml:1:11: the include goes in a circle: b.yaml -> c.yaml -> b.yaml,"
        " hint: remove one of them"
    ]
    assert problems("include: [policy.yaml]\n") == [
        "policy.yaml:3:11: the include goes in a circle: policy.yaml -> policy.yaml,"
        " hint: remove one of them"
    ]


def test_include_depth(problems: Finder) -> None:
    files = {f"f{i}.yaml": f"include: [f{i + 1}.yaml]\n" for i in range(20)}
    assert problems("include: [f0.yaml]\n", files) == [
        "f7.yaml:1:11: includes are nested deeper than 8 files"
    ]


def test_include_count(problems: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(include, "MAX_FILES", 5)
    doubling = {f"f{i}.yaml": f"include: [f{i + 1}.yaml, f{i + 1}.yaml]\n" for i in range(3)}
    found = problems("include: [f0.yaml]\n", {**doubling, "f3.yaml": "rules: []\n"})
    assert found[0].endswith("more than 5 includes, hint: put their rules into fewer files")


ESCAPES = {
    "dots": "../outside.yaml",
    "absolute": "{outside}",
    "symlink": "link.yaml",
    "symlinked folder": "folder/outside.yaml",
}


@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES)
def test_no_escape_from_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    outside = tmp_path / "outside.yaml"
    outside.write_text(RULE % "a")
    (folder / "link.yaml").symlink_to(outside)
    (folder / "folder").symlink_to(tmp_path)
    root = folder / "p.yaml"
    written = name.format(outside=outside)
    root.write_text(f"version: 1\ncloud: AzureCloud\ninclude: [{written}]\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(root)
    assert [str(one) for one in caught.value.problems] == [
        f"{root}:3:11: {written!r} is outside the policy's folder,"
        f" hint: move it below {folder}, or allow it with --allow-outside"
    ]
    assert len(load_policy(root, allow_outside=True).rules) == 1


def test_config_map_symlinks_are_followed(tmp_path: Path) -> None:
    data = tmp_path / "..2026_11_22"
    data.mkdir()
    (data / "p.yaml").write_text("version: 1\ncloud: AzureCloud\ninclude: [a.yaml]\n")
    (data / "a.yaml").write_text(RULE % "a")
    (tmp_path / "..data").symlink_to(data.name)
    for name in ("p.yaml", "a.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    policy = load_policy(tmp_path / "p.yaml")
    assert policy.files == (tmp_path / "p.yaml", tmp_path / "a.yaml")


def test_files_that_cannot_be_read(problems: Finder, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    found = problems(
        'include: [none.yaml, folder, loop.yaml, "a\\eb"]\n'
        "rules: [{to: ['list:pipe.txt', 'list:none.txt'], ports: [https, 'tcp:22']}]\n"
    )
    assert [one.partition(", hint")[0] for one in found] == [
        "policy.yaml:3:11: 'none.yaml' cannot be read: No such file or directory",
        "policy.yaml:3:22: 'folder' cannot be read: Is a directory",
        found[2].partition(", hint")[0],
        "policy.yaml:3:41: 'a\\x1bb' is not a path that a log can show",
        "policy.yaml:4:15: 'pipe.txt' cannot be read: not a regular file",
        "policy.yaml:4:32: 'none.txt' cannot be read: No such file or directory",
    ]
    assert found[2].startswith("policy.yaml:3:30: 'loop.yaml' cannot be read: ")


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_include_that_is_no_yaml(problems: Finder) -> None:
    assert problems("include: [a.yaml]\n", {"a.yaml": "a: [b\n"}) == [
        "a.yaml:1:4: not YAML: while parsing a flow sequence, did not find expected ',' or ']',"
        " hint: the list that begins here is not closed with ]"
    ]


def test_list_with_problems_is_read_once(problems: Finder) -> None:
    text = (
        "rules:\n  - {to: ['list:n.txt'], ports: [https]}\n"
        "  - {to: ['list:n.txt', 'list:n.txt'], ports: ['tcp:22']}\n"
    )
    wildcard = (
        "list:n.txt, which has *.example.com, on tcp or udp: a wildcard has no addresses to"
        " resolve, hint: write exact names, or judge it by name with tls: or http: ports"
    )
    assert problems(text, {"n.txt": "a_!\n*.example.com\n"}) == [
        f"policy.yaml:5:11: {wildcard}",
        f"policy.yaml:5:25: {wildcard}",
        "n.txt:1:1: 'a_!': 'a_!' is not a host name, hint: letters, digits, hyphens inside a"
        " label, underscores, and dots between labels",
    ]


def test_names_on_tcp_and_udp(load: Loader) -> None:
    policy = load(
        "rules:\n  - {to: ['list:n.txt', ntp.example.com], ports: ['udp:123']}\n"
        "  - {to: ['list:n.txt'], ports: ['tcp:22']}\n",
        {"n.txt": "a.example.com"},
    )
    assert policy.rules[0].lists[0].entries == ("a.example.com",)
    assert policy.rules[0].lists[0] is policy.rules[1].lists[0]
    assert [str(pattern) for pattern in policy.rules[0].patterns] == ["ntp.example.com"]


REQUIREMENTS = {
    "unknown": (
        "requirements: [aks/cor]\n",
        "policy.yaml:3:16: aks/cor: there is no requirement 'aks/cor', hint: did you mean",
    ),
    "needs a parameter": (
        "requirements: [aks/core]\n",
        "policy.yaml:3:16: aks/core: it needs location, hint: location: japaneast",
    ),
    "parameter it does not take": (
        "requirements:\n  - mcr: {registry: x}\n",
        "policy.yaml:4:11: it takes no parameter 'registry'",
    ),
    "wrong value": (
        "requirements:\n  - acr: {registry: my_reg}\n",
        "policy.yaml:4:11: registry: 'my_reg' is not a registry's name",
    ),
    "wrong shared value": (
        "parameters: {registry: my_reg}\nrequirements: [acr]\n",
        "policy.yaml:3:14: registry: 'my_reg' is not a registry's name",
    ),
    "wrong shared value, others right": (
        "parameters: {location: eastus, registry: my_reg}\nrequirements: [acr]\n",
        "policy.yaml:3:32: registry: 'my_reg' is not a registry's name",
    ),
    "number": (
        "requirements:\n  - acr: {registry: 12345}\n",
        "policy.yaml:4:21: 12345 is read as a number by YAML, not as a text, hint: quote it",
    ),
    "via": (
        "requirements:\n  - aks/tunnel: {via: cidr}\n",
        "policy.yaml:4:23: there is no via 'cidr', hint: did you mean cidrs?",
    ),
    "no via": (
        "requirements: [aks/tunnel]\n",
        "policy.yaml:3:16: aks/tunnel: via must be chosen, hint: via: one of",
    ),
    "cloud lacks it": (
        "requirements: [aks/istio]\n",
        "policy.yaml:3:16: aks/istio: AzureChinaCloud does not have this requirement",
    ),
}


@pytest.mark.parametrize(("text", "expected"), REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_problem_of_a_requirement(problems: Finder, text: str, expected: str) -> None:
    cloud = "AzureChinaCloud" if "istio" in text else "AzureCloud"
    found = problems(text, head=f"version: 1\ncloud: {cloud}\n")
    assert any(one.startswith(expected) for one in found), found


def test_not_every_problem_of_many_is_looked_for(problems: Finder) -> None:
    found = problems("rules:\n" + "  - {}\n" * MAX_PROBLEMS)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == "policy.yaml: there may be more, not looked for"


def test_equal_problems_count_too(problems: Finder) -> None:
    repeated = ", ".join(["*a"] * 999)
    text = f"rules: [{{to: [b.test], ports: [https], from: [&a nobody, {repeated}, *a]}}]\n"
    found = problems(text)
    assert [one.partition(", hint")[0] for one in found] == [
        "policy.yaml:3:47: there is no source group 'nobody'",
        "policy.yaml: there may be more, not looked for",
    ]


OVERSIZED = {
    "groups": "sources: {g: [10.0.0.1, 10.0.0.2, 10.0.0.3]}\nrules:\n"
    "  - {to: [a.test], ports: [https], from: [g]}\n"
    "  - {to: [b.test], ports: [https], from: [g]}\n",
    "ranges": "\nrules:\n"
    "  - {to: [20.1.2.3, 20.1.2.4], ports: ['tcp:1']}\n"
    "  - {to: [20.1.2.5, 20.1.2.6, 20.1.2.7], ports: ['tcp:1']}\n",
    "requirements": "parameters: {api_server_ips: [20.1.2.3, 20.1.2.4]}\nrequirements:\n"
    "  - aks/tunnel: {via: api-server}\n"
    "  - aks/api-server\n",
}


@pytest.mark.parametrize("text", OVERSIZED.values(), ids=OVERSIZED)
def test_ranges_of_all_rules_are_bounded(
    problems: Finder, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(problems_module, "MAX_RANGES", 4)
    (found,) = problems(text)
    assert "more than 4 address ranges in all rules, tags and groups included" in found
    assert "policy.yaml:6:" in found or "policy.yaml:5:" in found


def test_bytes_of_all_documents_are_bounded(
    problems: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(include, "MAX_TOTAL_BYTES", 3 << 20)
    found = problems("include: [a.yaml, a.yaml]\n", {"a.yaml": "#" * (2 << 20) + "\nrules: []\n"})
    assert found == [
        "policy.yaml:3:19: documents of more than 3 MB in all,"
        " hint: mass lists of names go into a file: list:names.txt"
    ]


def test_a_symlink_that_changes_between_check_and_reading(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    (folder / "a.txt").write_text("a.test")
    (folder / "list.txt").symlink_to("a.txt")
    found = Problems()
    report = found.of("policy.yaml")
    place = Scalar("list.txt", True, 1, 1)
    files = Folder(folder)
    path = files.find("list.txt", folder / "policy.yaml", place, report)
    assert path is not None
    assert files.read(path, 100, place, report) == b"a.test"
    path.unlink()
    path.symlink_to(secret)
    assert files.read(path, 100, place, report) is None
    (only,) = found.found
    assert only.what == "'list.txt' cannot be read: it is outside the policy's folder"
    assert Folder(folder, allow_outside=True).read(path, 100, place, report) == b"hidden"
    assert Folder(folder).read(path, 100, None, report) == b"hidden"  # a root is where it is


def test_quoted_text_stays_on_one_line_and_short(problems: Finder) -> None:
    (found,) = problems('rules: [{to: ["a\\n\\e[31mb"], ports: [https]}]\n')
    assert "a\\n\\x1b[31mb" in found.replace("\\\\", "\\")
    assert found.isprintable()
    (found,) = problems('mode: "a\\n\\e[31mb"\n')
    hint = "write enforce or audit or warn-on-new"
    assert found == f"policy.yaml:3:7: a\\n\\x1b[31mb is not a mode, hint: {hint}"
    (long,) = problems(f"rules: [{{to: ['{'y' * 5000}!'], ports: [https]}}]\n")
    assert len(long) < 800


class TestDigest:
    def test_does_not_see_comments_files_and_order_within_a_key(self, load: Loader) -> None:
        one = load(
            "rules:\n  - {name: a, to: [a.example.com, b.example.com], ports: [https, http]}\n"
            "  - {to: ['list:n.txt'], ports: [https], from: [10.0.0.0/8, 10.1.0.0/16]}\n",
            {"n.txt": "x.example.com\n"},
        )
        two = load(
            "# the same\ninclude: [sub/b.yaml, sub/c.yaml]\n",
            {
                "sub/b.yaml": 'rules:\n- name: "a"\n  ports: ["http:80", "tls:443"]\n'
                "  to: [B.example.com, a.example.com.]\n",
                "sub/c.yaml": "rules: [{ports: [https], to: ['list:m.txt'],"
                " from: [10.1.0.0/16, 10.0.0.0/8]}]\n",
                "sub/m.txt": "# list\nX.example.com # x\n",
            },
        )
        assert one.digest == two.digest
        assert len(one.digest) == 64

    CHANGES = (
        "mode: audit\n" + RULE % "a",
        "ech: refuse\n" + RULE % "a",
        "sources: {x: [10.0.0.0/8]}\n" + RULE % "a",
        RULE % "b",
        "rules: [{name: x, to: [a.example.com], ports: [https]}]\n",
        "rules: [{to: [a.example.com], ports: [https], until: 2026-12-31}]\n",
        "rules: [{to: [a.example.com], ports: [https], action: deny}]\n",
        "rules: [{to: [a.example.com], ports: [http]}]\n",
        "rules: [{to: [a.example.com, b.example.com], ports: [https]}]\n",
        "rules: [{to: [a.example.com], ports: [https], from: [10.0.0.0/8]}]\n",
        "requirements: [mcr]\n" + RULE % "a",
    )

    def test_sees_everything_that_counts(self, load: Loader) -> None:
        digests = {load(text).digest for text in (RULE % "a", *self.CHANGES)}
        assert len(digests) == len(self.CHANGES) + 1

    def test_sees_the_order_of_rules(self, load: Loader) -> None:
        rules = [f"  - {{to: [{n}.example.com], ports: [https]}}\n" for n in "ab"]
        assert (
            load("rules:\n" + "".join(rules)).digest
            != load("rules:\n" + "".join(reversed(rules))).digest
        )


SCALARS = st.one_of(
    st.sampled_from(
        ["a.example.com", "*.example.com", "https", "tcp:22", "10.0.0.0/8", "mcr", "build", "~"]
    ),
    st.sampled_from(["deny", "audit", "2026-12-31", "1", "on", "tag:Sql", "list:policy.yaml"]),
    st.text(max_size=8),
)
_WORDS = (
    "version cloud mode audit_until warn_until warn_window parameters sources requirements rules"
    " service_tags include"
    " name action to ports from until destination sni ech addresses file via location x"
)
KEYS = st.sampled_from(_WORDS.split())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(KEYS, TREES, max_size=6))
def test_any_structure_gives_a_policy_or_a_policy_error(tmp_path: Path, tree: object) -> None:
    root = tmp_path / "policy.yaml"
    root.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    with contextlib.suppress(PolicyError):
        load_policy(root)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_give_a_policy_error(tmp_path: Path, data: bytes) -> None:
    root = tmp_path / "policy.yaml"
    root.write_bytes(data)
    with pytest.raises(PolicyError):
        load_policy(root)


def test_a_folder_is_its_policy_yaml(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    policy = load_policy(tmp_path)
    assert [path.name for path in policy.files] == ["policy.yaml"]
    assert policy.digest == load_policy(tmp_path / "policy.yaml").digest


def test_no_source_that_can_be_read(problems: Finder) -> None:
    (found,) = problems("rules: [{to: [a.test], ports: [https], from: ['!']}]\n")
    assert found.startswith("policy.yaml:3:47: '!' is not the name of a source group")


@pytest.mark.parametrize("text", ["10.1.2.3.4", "10.1.2", "10.1.2.", "10.1.2.*", "10.1.x.x"])
def test_a_source_that_was_meant_as_an_address(problems: Finder, text: str) -> None:
    found = problems(f"rules: [{{to: [a.test], ports: [https], from: [{text}]}}]\n")
    assert found == [
        f"policy.yaml:3:47: {text!r} is neither a source group nor an address range,"
        " hint: an IPv4 address has four parts, as 10.1.2.3; a range is 10.1.2.0/24"
    ]


def test_references_that_no_log_can_show(problems: Finder) -> None:
    found = problems('rules: [{to: ["list:a\\eb", "tag:a\\eb"], ports: ["tcp:1"]}]\n')
    assert [one.partition(", hint")[0] for one in found] == [
        "policy.yaml:3:15: 'list:a\\x1bb' is not a text that a log can show",
        "policy.yaml:3:28: 'tag:a\\x1bb' is not a text that a log can show",
    ]

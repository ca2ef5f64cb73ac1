"""Suggestions from a day's denies, and the law that they open what they say and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.behaviour import Behaviour
from egressproxy.review.classify import Classifier
from egressproxy.review.drafts import candidate
from egressproxy.review.eligible import Limits
from egressproxy.review.model import Class
from egressproxy.review.replay import Replay, replay
from egressproxy.review.suggest import MAX_WITHHELD, suggest
from egressproxy.review.suggestion import Kind
from tests.policy.building import NOON, networks, policy, rule
from tests.review.subjects import Told, counted, subject

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.rules import Policy
    from egressproxy.review.model import SubjectCount
    from egressproxy.review.suggestion import Suggestion

NETWORK = {"plane": Plane.NETWORK, "protocol": "tcp", "name_source": NameSource.DNS}
GROUPS = (("cluster-a", networks("10.240.0.0/16")), ("build", networks("10.241.4.0/24")))
HERE = policy(
    rule("rules/no-gists", "gist.github.com", action=Action.DENY),
    rule("rules/github", "github.com"),
    sources=GROUPS,
    parameters=(("location", "japaneast"),),
)
HASHES = ("a3f9c04e", "7f9d41b2", "deadbeef00", "0badcafe")


def told(
    *day: SubjectCount, policy: Policy = HERE, limits: Limits | None = None, **classes: Any
) -> tuple[Suggestion, ...]:
    ruleset = compile_policy(policy)
    return suggest(day, policy, ruleset, Told(**classes), NOON, limits=limits)


def offered(found: tuple[Suggestion, ...]) -> list[tuple[str, str]]:
    return [(each.kind.value, each.title) for each in found if each.is_offered]


def applied(found: tuple[Suggestion, ...], day: list[SubjectCount], here: Policy) -> Replay:
    new = candidate(here, [each for each in found if each.is_offered])
    return replay(day, compile_policy(here), compile_policy(new), NOON)


def test_one_name() -> None:
    (found,) = told(counted(subject("api.example.com"), 7))
    assert (found.kind, found.title, found.why) == (Kind.NAME, "api.example.com", "no rule matches")
    assert found.evidence.flows == 7
    assert found.risk == "this name alone; one client alone wanted it"
    assert found.yaml == (
        "rules:\n"
        "  - name: api.example.com\n"
        "    to: [api.example.com]\n"
        "    ports: [https]\n"
        "    from: [cluster-a]\n"
    )


def test_one_requirement() -> None:
    names = ("mcr.microsoft.com", "packages.aks.azure.com", "lab-1.hcp.japaneast.azmk8s.io")
    (found,) = told(*(counted(subject(name), 2) for name in names))
    assert (found.kind, found.title) == (Kind.REQUIREMENT, "aks/core")
    assert found.why == "What every cluster needs by name"
    assert found.risk == (
        "9 documented names, 3 asked for; make sure that lab-1.hcp.japaneast.azmk8s.io is yours;"
        " one client alone wanted it"
    )
    assert found.yaml == (
        "requirements:\n"
        "  - aks/core: {api_server_fqdn: lab-1.hcp.japaneast.azmk8s.io, from: [cluster-a]}\n"
    )


def test_what_many_clients_want_is_said_to_be_wanted_by_one_no_more() -> None:
    (found,) = told(*(counted(subject("a.example", src_ip=f"10.240.0.{n}")) for n in (4, 5)))
    assert found.risk == "this name alone"


def test_clients_of_no_group_are_everyone_and_told() -> None:
    (found,) = told(*(counted(subject("a.example", src_ip=f"10.9.0.{n}")) for n in (4, 5)))
    assert found.risk.endswith("for every client: those seen are not all in source groups")


def test_another_api_server_is_anybodys() -> None:
    """One ClientHello must not open every cluster of the region, nor one that is an attacker's."""
    names = ("mcr.microsoft.com", "lab-1.hcp.japaneast.azmk8s.io")
    evil = ("evil.hcp.japaneast.azmk8s.io", "evil.hcp.zzz.azmk8s.io")
    found = told(
        *(counted(subject(name), 9) for name in names), *(counted(subject(name)) for name in evil)
    )
    assert [each.entry for each in found if each.is_offered] == [
        ("- aks/core: {api_server_fqdn: lab-1.hcp.japaneast.azmk8s.io, from: [cluster-a]}",)
    ]
    withheld = {each.title: each for each in found if not each.is_offered}
    assert sorted(withheld) == sorted(evil)
    assert withheld[evil[0]].why == (
        "any customer can have a name below hcp.japaneast.azmk8s.io: make sure that it is yours"
    )
    assert "to: [evil.hcp.zzz.azmk8s.io]" in withheld[evil[1]].yaml


def test_the_word_for_an_api_server() -> None:
    names = ("mcr.microsoft.com", "a.hcp.japaneast.azmk8s.io", "b.hcp.japaneast.azmk8s.io")
    found = told(
        *(counted(subject(name)) for name in names),
        limits=Limits(mine=("*.hcp.japaneast.azmk8s.io",)),
    )
    assert offered(found) == [
        ("requirement", "aks/core"),
        ("name", "b.hcp.japaneast.azmk8s.io"),
    ]


def test_requirements_then_names_then_wildcards_then_addresses() -> None:
    found = told(
        counted(subject(None, dst_port=1433, **NETWORK), 50),
        *(counted(subject(f"{h}.cdn.vendor.example"), 20) for h in HASHES),
        counted(subject("api.example.com"), 3),
        counted(subject("db.example.com", dst_port=5432, **NETWORK), 9),
        counted(subject("data.policy.core.windows.net"), 1),
    )
    assert offered(found) == [
        ("requirement", "aks/azure-policy"),
        ("name", "db.example.com"),
        ("name", "api.example.com"),
        ("wildcard", "*.cdn.vendor.example"),
        ("address", "20.1.2.3"),
    ]
    risks = {each.title: each.risk for each in found}
    assert risks["*.cdn.vendor.example"].startswith("every name that is *.cdn.vendor.example")
    assert risks["20.1.2.3"].startswith("by address")
    assert risks["db.example.com"].startswith("by the name's addresses")
    assert found[3].why == "4 names that differ in a hash"


def test_words_of_one_suffix_stay_names() -> None:
    found = told(*(counted(subject(f"{w}.vendor.example")) for w in ("api", "www", "cdn", "auth")))
    assert {kind for kind, _ in offered(found)} == {"name"}


def test_ports_and_sources_of_one_name_are_one_rule() -> None:
    (found,) = told(
        counted(subject("a.example")),
        counted(subject("a.example", dst_port=80, protocol="http")),
        counted(subject("a.example", dst_port=8443, src_ip="10.241.4.9")),
    )
    assert found.entry[2:] == ('  ports: [http, https, "tls:8443"]', "  from: [build, cluster-a]")


def test_a_near_miss_is_named() -> None:
    (found,) = told(counted(subject("api.github.com")))
    assert found.why == "rules/github github.com is that name only; names below it are *.github.com"


def test_withheld_at_the_end_with_a_reason() -> None:
    found = told(
        counted(subject("bad.example"), 90),
        counted(subject("gist.github.com"), 5),
        counted(subject("x.blob.core.windows.net"), 2),
        counted(subject("api.example.com"), 1),
        suspicious=("bad.example",),
    )
    assert [(each.kind.value, each.title) for each in found] == [
        ("name", "api.example.com"),
        ("withheld", "bad.example"),
        ("withheld", "gist.github.com"),
        ("withheld", "x.blob.core.windows.net"),
    ]
    assert found[1].yaml == found[2].yaml == ""
    assert "to: [x.blob.core.windows.net]" in found[3].yaml


def test_a_tunnels_names_are_withheld() -> None:
    day = [counted(subject(f"{n}a3f9c04e.t.example")) for n in range(6)]
    found = told(*day)
    assert not offered(found)
    assert {each.why for each in found} == {
        "6 names that differ in a hash, each once, of one client: the shape of a tunnel"
    }


def test_no_wildcard_over_what_must_stay_denied() -> None:
    names = [f"{h}.cdn.vendor.example" for h in HASHES]
    found = told(
        *(counted(subject(name), 3) for name in names),
        counted(subject("0123456789ab.cdn.vendor.example"), 3),
        suspicious=("0123456789ab.cdn.vendor.example",),
    )
    assert offered(found) == [("name", name) for name in sorted(names)]


class ByClient(Told):
    """What one client does is suspicious."""

    def finding(self, subject: Any) -> Any:
        if subject.src_ip == "10.240.9.9":
            return Told(suspicious=(subject.target,)).finding(subject)
        return super().finding(subject)


def test_a_name_that_somebody_scans_is_for_the_others_alone() -> None:
    day = [
        counted(subject("a.example", src_ip=source), 3)
        for source in ("10.240.0.4", "10.240.0.5", "10.240.9.9")
    ]
    found = suggest(day, HERE, compile_policy(HERE), ByClient(), NOON)
    assert found[0].entry[-1] == "  from: [10.240.0.4, 10.240.0.5]"
    assert [each.title for each in found if not each.is_offered] == ["a.example"]
    assert {one.sources for one in applied(found, day, HERE).newly_allowed} == {
        ("10.240.0.4", "10.240.0.5")
    }


def test_a_name_that_the_same_client_wants_suspiciously_too_is_given_up() -> None:
    day = [counted(subject("a.example")), counted(subject("a.example", hello_split=True))]

    class Split(Told):
        def finding(self, subject: Any) -> Any:
            kind = Told(suspicious=(subject.target,)) if subject.hello_split else Told()
            return kind.finding(subject)

    found = suggest(day, HERE, compile_policy(HERE), Split(), NOON)
    assert not offered(found)
    assert any("cannot be opened without what must stay denied" in each.why for each in found)


def test_a_requirement_is_given_up_for_names_where_it_goes_too_far() -> None:
    found = told(
        counted(subject("x.ods.opinsights.azure.com"), 3),
        counted(subject("y.ods.opinsights.azure.com"), 3),
        counted(subject("x.monitoring.azure.com"), 3),
        suspicious=("y.ods.opinsights.azure.com",),
    )
    assert offered(found) == [
        ("name", "x.monitoring.azure.com"),
        ("name", "x.ods.opinsights.azure.com"),
    ]


def test_names_of_the_catalog_below_shared_suffixes_are_no_strangers() -> None:
    found = told(
        counted(subject("mcr.microsoft.com")), counted(subject("acs-mirror.azureedge.net"))
    )
    assert offered(found) == [("requirement", "aks/core")]
    assert found[0].evidence.flows == 2


def test_the_word_for_a_registry() -> None:
    day = [counted(subject("mine00.azurecr.io")), counted(subject("mine00.eastus.data.azurecr.io"))]
    assert not offered(told(*day))
    found = told(*day, limits=Limits(mine=[each.subject.target for each in day]))
    assert found[0].entry == (
        "- acr: {registry: mine00, data_endpoint: dedicated, regions: [eastus], from: [cluster-a]}",
    )


def test_in_audit_what_is_only_let_pass_is_suggested() -> None:
    audit = replace(HERE, mode=Mode.AUDIT)
    day = [counted(subject("a.example", action=Action.ALLOW, would_deny=True), 2)]
    found = told(*day, policy=audit)
    assert offered(found) == [("name", "a.example")]
    assert applied(found, day, audit).newly_allowed_flows == 2


def test_hostile_names_are_withheld_as_they_are() -> None:
    found = told(counted(subject('"><script>alert(1)</script>')), counted(subject("\x1b[31m")))
    assert not offered(found)
    assert all(each.yaml == "" for each in found)


def test_answers_are_bounded() -> None:
    names = [f"n{i}.example" for i in range(MAX_WITHHELD + 10)]
    found = told(*(counted(subject(n)) for n in names), suspicious=tuple(names))
    assert len(found) == MAX_WITHHELD


def test_beyond_the_commonest_names_the_rest_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressproxy.review.planning.MAX_NAMES", 2)
    found = told(*(counted(subject(f"{w}.example"), n) for n, w in enumerate("abc", 1)))
    assert offered(found) == [("name", "c.example"), ("name", "b.example")]
    assert found[2].why.startswith("beyond the")


def test_nothing_denied() -> None:
    assert told() == ()


def test_the_root_file_with_an_include_does_what_was_replayed(tmp_path: Path) -> None:
    """What is judged in memory is what the loader makes of the YAML."""
    root = tmp_path / "policy.yaml"
    head = "version: 1\ncloud: AzureCloud\nparameters: {location: japaneast}\n"
    root.write_text(head + "sources: {cluster-a: [10.240.0.0/16]}\n")
    here = load_policy(root)
    day = [
        counted(subject("mcr.microsoft.com"), 3),
        counted(subject("a.example"), 2),
        counted(subject("db.example", dst_port=5432, **NETWORK), 2),
        *(counted(subject(f"{h}.cdn.vendor.example"), 20) for h in HASHES),
        counted(subject("bad.example"), 9),
    ]
    found = told(*day, policy=here, suspicious=("bad.example",))
    parts: dict[str, list[str]] = {"requirements": [], "rules": []}
    for each in found:
        if each.is_offered:
            parts[each.section] += each.entry
    (tmp_path / "more.yaml").write_text(
        "version: 1\n"
        + "".join(f"{name}:\n" + "".join(f"  {e}\n" for e in es) for name, es in parts.items())
    )
    root.write_text(root.read_text() + "include: [more.yaml]\n")
    by_file = replay(day, compile_policy(here), compile_policy(load_policy(root)), NOON)
    by_memory = applied(found, day, here)
    assert [(c.target, c.count) for c in by_file.newly_allowed] == [
        (c.target, c.count) for c in by_memory.newly_allowed
    ]
    assert by_file.newly_allowed_flows == 87


# The law

TARGETS = (
    "mcr.microsoft.com",
    "acs-mirror.azureedge.net",
    "x.ods.opinsights.azure.com",
    "login.microsoftonline.com",
    "a.hcp.japaneast.azmk8s.io",
    "api.github.com",
    "gist.github.com",
    "gihtub.com",
    "mine00.azurecr.io",
    "evil.blob.core.windows.net",
    *(f"{h}.cdn.vendor.example" for h in HASHES),
    *(f"node-{h}.vendor.example" for h in HASHES),
    None,
)
SUBJECTS = st.builds(
    lambda name, port, src, plane, reason, split: subject(
        name,
        src_ip=src,
        reason=reason,
        hello_split=split,
        **({"dst_port": port} if plane is None else {"dst_port": port, **plane}),
    ),
    st.sampled_from(TARGETS),
    st.sampled_from([80, 443, 5432]),
    st.sampled_from(["10.240.0.4", "10.240.0.5", "10.241.4.9", "192.0.2.1"]),
    st.sampled_from([None, None, NETWORK, {**NETWORK, "protocol": "udp"}]),
    st.sampled_from([Reason.DEFAULT_DENY, Reason.DEFAULT_DENY, Reason.NO_SNI, Reason.LIMIT_SOURCE]),
    st.booleans(),
)
DAYS = st.lists(st.builds(counted, SUBJECTS, st.integers(1, 9)), max_size=15)


@given(DAYS, st.sets(st.sampled_from([t for t in TARGETS if t]), max_size=4), st.booleans())
def test_applying_all_opens_what_they_say_and_nothing_suspicious(
    day: list[SubjectCount], suspicious: set[str], is_split_suspicious: bool
) -> None:
    class Judge(Told):
        def finding(self, subject: Any) -> Any:
            if subject.hello_split and is_split_suspicious:
                return Told(suspicious=(subject.target,)).finding(subject)
            return super().finding(subject)

    judge = Judge(suspicious=tuple(suspicious))
    found = suggest(day, HERE, compile_policy(HERE), judge, NOON)
    opened = {
        each.subject.id
        for change in applied(found, day, HERE).newly_allowed
        for each in change.subjects
    }
    said = [each.subject.id for one in found if one.is_offered for each in one.subjects]
    assert sorted(opened) == sorted(said)
    bad = {
        each.subject.id
        for each in day
        if judge.finding(each.subject).kind is Class.SUSPICIOUS
        or each.subject.name in ("gist.github.com", "evil.blob.core.windows.net")
    }
    assert not opened & bad
    kept = {each.subject.id for one in found if not one.is_offered for each in one.subjects}
    assert not kept & opened
    assert all(one.evidence.flows > 0 for one in found)


ODD = ["a.example", "20.1.2.3", "2001:db8::1%e", "::ffff:20.1.2.3", "2001:db8::1"]
TEXTS = st.one_of(st.none(), st.text(max_size=40), st.sampled_from(ODD))
HOSTILE = st.builds(
    lambda name, src, dst, protocol, port, plane, reason, note: subject(
        name,
        src_ip=src or "",
        dst_ip=dst,
        protocol=protocol,
        dst_port=port,
        plane=plane,
        reason=reason,
        note=note or "",
    ),
    TEXTS,
    st.one_of(TEXTS, st.just("10.240.0.4")),
    TEXTS,
    st.one_of(st.sampled_from(["tls", "http", "tcp", "udp", "icmp"]), st.text(max_size=5)),
    st.one_of(st.sampled_from([443, 80]), st.integers()),
    st.sampled_from(Plane),
    st.sampled_from(Reason),
    TEXTS,
)


@given(st.lists(st.builds(counted, HOSTILE), max_size=8))
def test_whatever_was_recorded_is_answered(day: list[SubjectCount]) -> None:
    """Logs of others can hold anything."""
    ruleset = compile_policy(HERE)
    classifier = Classifier(HERE, ruleset, Behaviour(), now=NOON)
    found = suggest(day, HERE, ruleset, classifier, NOON)
    assert replay(day, None, ruleset, NOON).flows == len(day)
    for each in found:
        assert all(line.isprintable() for line in each.entry)
        assert each.is_offered <= bool(each.rules)

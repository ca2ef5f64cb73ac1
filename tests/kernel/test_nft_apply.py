"""nft_apply with programs that stand in for nft, and with nft and a real kernel."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.doctor.machine import run_program
from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import (
    Counter,
    Nft,
    SetChange,
    SetState,
    TableState,
    read_listing,
    read_timed_elements,
)
from lab.namespaces import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.namespaces import Namespace

# Programs that stand in for nft


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Nft]:
    """An nft whose shell text is given; ``$log`` collects how it was called."""

    def make(text: str) -> Nft:
        program = tmp_path / "nft"
        program.write_text(
            f"#!/bin/sh\nlog={tmp_path}/log\n"
            'echo "$@" >> "$log"\n'
            'case "$1" in --version) echo "nftables v1.0.9 (x)"; exit;; esac\n'
            f"{text}\n"
        )
        program.chmod(0o700)
        return Nft(str(program), timeout_s=5)

    return make


def test_a_script_is_checked_and_then_applied(fake: Callable[[str], Nft], tmp_path: Path) -> None:
    fake('cat >> "$log"').apply("add table inet x\n")
    assert (tmp_path / "log").read_text().splitlines() == [
        "--version",
        "--check --file -",
        "add table inet x",
        "--file -",
        "add table inet x",
    ]


def test_a_script_that_fails_its_check_is_not_applied(
    fake: Callable[[str], Nft], tmp_path: Path
) -> None:
    nft = fake('echo "/dev/stdin:1:1-2: Error: syntax error" >&2; exit 1')
    with pytest.raises(KernelError, match="syntax error") as caught:
        nft.apply("xyz")
    assert caught.value.code == "script"
    assert (tmp_path / "log").read_text().splitlines() == ["--version", "--check --file -"]


def test_an_old_nft_is_refused_before_it_reads_anything(tmp_path: Path) -> None:
    program = tmp_path / "nft"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "nftables v1.0.5 (x)"\n')
    program.chmod(0o700)
    with pytest.raises(KernelError, match=r"nft 1\.0\.5 is too old: 1\.0\.6") as caught:
        Nft(str(program)).check("")
    assert caught.value.code == "version"


def test_a_missing_nft_is_told_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="apt install nftables") as caught:
        Nft(str(tmp_path / "nft")).table_state()
    assert caught.value.code == "missing_program"


def test_an_nft_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "nft").write_text("no program")
    (tmp_path / "nft").chmod(0o700)
    with pytest.raises(KernelError, match="Exec format error"):
        Nft(str(tmp_path / "nft")).remove()


def test_nft_is_found_where_root_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's PATH may lack /usr/sbin."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Nft().version() >= (1, 0, 6)


@pytest.mark.parametrize("path", ["", ".", ".:/nonexistent", "bin:"])
def test_no_nft_is_taken_from_where_root_happens_to_be(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path / "nft", tmp_path / "bin" / "nft"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("#!/bin/sh\necho nftables v0.1\n")
        place.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    assert Nft().version() >= (1, 0, 6)
    assert run_program(("nft", "--version")) != "nftables v0.1\n"


def test_an_nft_that_hangs_is_ended(fake: Callable[[str], Nft]) -> None:
    nft = fake("exec sleep 60")
    nft.timeout_s = 0.2
    with pytest.raises(KernelError, match=r"within 0\.2 s") as caught:
        nft.remove()
    assert caught.value.code == "timeout"


def test_the_environment_does_not_reach_nft(
    fake: Callable[[str], Nft], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "token")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    fake('env >> "$log"').remove()
    environment = (tmp_path / "log").read_text()
    assert "LC_ALL=C" in environment
    assert "SECRET" not in environment


REFUSED: Final[dict[str, Callable[[Nft], object]]] = {
    "check": lambda nft: nft.check(""),
    "state": lambda nft: nft.table_state(),
    "remove": lambda nft: nft.remove(),
    "add": lambda nft: nft.add_elements("n4_x", [("192.0.2.1", 1)]),
    "delete": lambda nft: nft.remove_elements("n4_x", ["192.0.2.1"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_missing_capability_is_told_everywhere(fake: Callable[[str], Nft], case: str) -> None:
    nft = fake('echo "Operation not permitted (you must be root)" >&2; exit 1')
    with pytest.raises(KernelError, match="CAP_NET_ADMIN") as caught:
        REFUSED[case](nft)
    assert caught.value.code == "permission"


def test_what_is_not_there_is_an_answer(fake: Callable[[str], Nft]) -> None:
    nft = fake('echo "Error: No such file or directory" >&2; exit 1')
    assert nft.table_state() is None
    assert nft.remove() is False


@pytest.mark.parametrize("name", ["", "S", "n4_x }; flush ruleset; add set inet t {", "n4\n", "é"])
def test_a_sets_name_is_held_to_its_form(fake: Callable[[str], Nft], name: str) -> None:
    with pytest.raises(KernelError, match="not a set's name"):
        fake("").add_elements(name, [("192.0.2.1", 60)])


@pytest.mark.parametrize("address", ["", "localhost", "192.0.2.1 }", "192.0.2.0/24", "*"])
def test_an_address_is_held_to_its_form(fake: Callable[[str], Nft], address: str) -> None:
    with pytest.raises(KernelError, match="no address for a set"):
        fake("").add_elements("n4_x", [("192.0.2.7", 60), (address, 60)])
    with pytest.raises(KernelError, match="no address for a set"):
        fake("").remove_elements("n4_x", [address])


def test_nothing_to_do_starts_nothing(fake: Callable[[str], Nft], tmp_path: Path) -> None:
    fake("").add_elements("n4_x", [])
    fake("").remove_elements("n4_x", [])
    assert not (tmp_path / "log").exists()


TIMES: Final = {0: 1, -5: 1, 1: 1, 600: 600, 10**9: 7 * 86400}


@pytest.mark.parametrize("seconds", TIMES)
def test_no_element_stays_for_ever(
    fake: Callable[[str], Nft], tmp_path: Path, seconds: int
) -> None:
    fake('cat >> "$log"').add_elements("n6_x", [("2001:db8::1", seconds)])
    wanted = f"add element inet egressproxy n6_x {{ 2001:db8::1 timeout {TIMES[seconds]}s }}"
    assert (tmp_path / "log").read_text().splitlines()[-1] == wanted


LISTING: Final = {
    "nftables": [
        {"metainfo": {"version": "1.0.9", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "egressproxy", "handle": 1}},
        {"counter": {"name": "r_1", "handle": 2, "packets": 5, "bytes": 300}},
        {"set": {"name": "s4_1", "type": "ipv4_addr", "handle": 3, "flags": ["interval"]}},
        {"chain": {"name": "about", "handle": 4}},
        {"rule": {"chain": "about", "handle": 5, "comment": "policy 0123abcd", "expr": []}},
        {"rule": {"chain": "about", "handle": 6, "expr": [{"drop": None}]}},
        {"rule": {"chain": "about", "handle": 7, "expr": [{"redirect": {"port": 15001}}]}},
        {"rule": {"chain": "about", "handle": 8, "expr": [{"redirect": None}]}},
        {"rule": {"chain": "about", "handle": 9, "expr": [{"tproxy": {"port": 15002}}]}},
    ]
}


def test_a_listing_is_read() -> None:
    state = read_listing(json.dumps(LISTING), elements=False)
    assert state == TableState(
        digest="0123abcd",
        proxy_ports=frozenset({15001, 15002}),
        fingerprint=state.fingerprint,
        chains=frozenset({"about"}),
        sets={"s4_1": SetState("ipv4_addr", frozenset({"interval"}))},
        counters={"r_1": Counter(5, 300)},
    )


DIGESTS: Final = {
    "policy 0123abcd of 2026": ("0123abcd", ""),
    "policy 0123abcd, options 89abcdef": ("0123abcd", "89abcdef"),
    "policy 0123abcd, options XYZ": ("", ""),
    "policy XYZ": ("", ""),
    "between 0123abcd and 4567": ("", ""),
    "a policy 0123abcd": ("", ""),
    "": ("", ""),
}


@pytest.mark.parametrize("comment", DIGESTS)
def test_digests(comment: str) -> None:
    listing = {"nftables": [{"rule": {"comment": comment}}]}
    found = read_listing(json.dumps(listing), elements=False)
    assert (found.digest, found.options) == DIGESTS[comment]


BAD_LISTINGS: Final = (
    "",
    "[]",
    "{}",
    '{"nftables": 1}',
    '{"nftables": [1]}',
    '{"nftables": [{}]}',
    '{"nftables": [{"rule": 1}]}',
    '{"nftables": [{"counter": {"name": "x", "packets": "many", "bytes": 1}}]}',
    '{"nftables": [{"set": {"name": "x"}}]}',
)


@pytest.mark.parametrize("text", BAD_LISTINGS)
def test_a_listing_of_another_form_is_told(text: str) -> None:
    with pytest.raises(KernelError, match="form that is not known"):
        read_listing(text, elements=True)


_JSON: Final = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("rule", "set", "chain", "counter", "name", "type"),
                    *("flags", "timeout", "elem", "val", "expires"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(_JSON)
def test_any_listing_is_read_or_refused(found: object) -> None:
    try:
        read_listing(json.dumps({"nftables": found}), elements=True)
        read_timed_elements(json.dumps({"nftables": found}))
    except KernelError:
        return


TEN, TWENTY = 10 << 24, 20 << 24
S4_B_SPANS = ((TEN, TEN + (1 << 24) - 1), (TWENTY, TWENTY + 5))


# nft and a real kernel

TABLE: Final = """
table inet egressproxy {
    set n4_a { type ipv4_addr; flags timeout; }
    set s4_b { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 20.0.0.0-20.0.0.5 }; }
    counter r_1 { comment "one"; }
    chain about { return comment "policy 0123456789abcdef, options 76543210"; }
    chain nat { type nat hook prerouting priority dstnat; meta l4proto tcp redirect to :15001; }
    chain delivered {
        type filter hook prerouting priority mangle; policy accept;
        meta nfproto ipv4 meta l4proto tcp tproxy ip to :15002 accept
        meta l4proto tcp tproxy to :15003
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ip saddr @s4_b ip daddr @n4_a counter name r_1 accept
        tcp dport { 443, 80 } accept
    }
    chain output {
        type filter hook output priority filter; policy accept;
        counter name r_1
    }
}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Namespace]:
    with namespaces(("hub",), tmp_path / "etc") as made, made["hub"].entered():
        yield made["hub"]


@pytest.mark.netns
def test_a_table_is_applied_read_and_removed(hub: Namespace) -> None:
    nft = Nft()
    assert nft.table_state() is None
    nft.check(TABLE)
    assert nft.table_state() is None
    nft.apply(TABLE)
    state = nft.table_state(elements=True)
    assert state is not None
    assert state.digest == "0123456789abcdef"
    assert state.options == "76543210"
    assert state.proxy_ports == {15001, 15002, 15003}
    assert state.chains == {"about", "delivered", "forward", "nat", "output"}
    assert state.sets["s4_b"] == SetState("ipv4_addr", frozenset({"interval"}), 2, S4_B_SPANS)
    assert state.sets["n4_a"].elements == 0
    assert state.counters == {"r_1": Counter(0, 0, "one")}
    hub.run("nft", "add", "table", "inet", "other")
    assert nft.remove()
    assert not nft.remove()
    assert nft.table_state() is None
    assert hub.run("nft", "list", "ruleset") == "table inet other {\n}\n"


@pytest.mark.netns
def test_a_script_is_all_or_nothing(hub: Namespace) -> None:
    nft = Nft()
    nft.apply(TABLE)
    before = nft.table_state(elements=True)
    with pytest.raises(KernelError) as caught:
        nft.apply("flush table inet egressproxy\nadd rule inet egressproxy nowhere accept\n")
    assert caught.value.code == "script"
    assert "nowhere" in str(caught.value)
    assert nft.table_state(elements=True) == before


@pytest.mark.netns
def test_a_fingerprint_changes_with_the_table_alone(hub: Namespace) -> None:
    def fingerprint() -> str:
        state = Nft().table_state()
        assert state is not None
        return state.fingerprint

    nft = Nft()
    nft.apply(TABLE)
    first = fingerprint()
    nft.add_elements("n4_a", [("192.0.2.1", 600)])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"counted", ("127.0.0.1", 9))
    state = nft.table_state()
    assert state is not None
    assert state.counters["r_1"].packets
    assert fingerprint() == first
    nft.apply(f"flush table inet egressproxy\n{TABLE}")
    assert fingerprint() == first
    hub.run("nft", "add", "rule", "inet", "egressproxy", "forward", "accept")
    changed = fingerprint()
    assert changed != first
    hub.run("nft", "insert", "rule", "inet", "egressproxy", "forward", "drop")
    assert fingerprint() not in (first, changed)


@pytest.mark.netns
def test_elements_are_put_in_kept_longer_and_taken_out(hub: Namespace) -> None:
    nft = Nft()
    nft.apply(TABLE)
    nft.add_elements("n4_a", [("192.0.2.1", 600), ("192.0.2.2", 600), ("192.0.2.3", 600)])
    nft.add_elements("n4_a", [("192.0.2.1", 5000), ("192.0.2.2", 10), ("192.0.2.2", 20)])
    nft.remove_elements("n4_a", ["192.0.2.3", "192.0.2.3", "192.0.2.4"])
    assert elements(hub) == {"192.0.2.1": 5000, "192.0.2.2": 20}
    with pytest.raises(KernelError, match="zz"):
        nft.add_elements("zz", [("192.0.2.1", 5)])
    with pytest.raises(KernelError):
        nft.add_elements("n4_a", [("192.0.2.9", 5), ("2001:db8::1", 5)])
    assert elements(hub) == {"192.0.2.1": 5000, "192.0.2.2": 20}


@pytest.mark.netns
def test_what_has_a_timeout_is_listed_with_what_is_left(hub: Namespace) -> None:
    """And what somebody put in for ever is none of ours."""
    nft = Nft()
    with pytest.raises(KernelError):
        nft.timed_elements()
    nft.apply(TABLE)
    assert nft.timed_elements() == {"n4_a": ()}
    nft.add_elements("n4_a", [("192.0.2.1", 600)])
    hub.run("nft", "add", "element", "inet", "egressproxy", "n4_a", "{ 192.0.2.7 }")
    (found,) = nft.timed_elements()["n4_a"]
    assert found[0] == "192.0.2.1"
    assert 0 < found[1] <= 600


@pytest.mark.netns
def test_a_set_is_replaced_and_several_change_together(hub: Namespace) -> None:
    nft = Nft()
    nft.apply(TABLE)
    nft.add_elements("n4_a", [("192.0.2.1", 600), ("192.0.2.2", 600)])
    nft.change_elements([SetChange("n4_a", add=(("192.0.2.2", 60), ("192.0.2.3", 60)), flush=True)])
    assert elements(hub) == {"192.0.2.2": 60, "192.0.2.3": 60}
    with pytest.raises(KernelError, match="zz"):
        nft.change_elements([SetChange("n4_a", flush=True), SetChange("zz", flush=True)])
    assert elements(hub) == {"192.0.2.2": 60, "192.0.2.3": 60}
    nft.change_elements([])


@pytest.mark.netns
def test_thousands_of_elements_are_one_transaction(hub: Namespace) -> None:
    nft = Nft()
    nft.apply(TABLE)
    many = {f"192.0.{number >> 8}.{number & 255}": 600 for number in range(5000)}
    nft.add_elements("n4_a", many.items())
    assert elements(hub) == many
    nft.remove_elements("n4_a", many)
    assert elements(hub) == {}


def elements(hub: Namespace) -> dict[str, int]:
    """What is in the set, with the time that each element was given."""
    listed = json.loads(hub.run("nft", "--json", "list", "set", "inet", "egressproxy", "n4_a"))
    found = listed["nftables"][1]["set"].get("elem", [])
    return {each["elem"]["val"]: each["elem"]["timeout"] for each in found}


@pytest.mark.netns
def test_who_may_not_is_told_so(hub: Namespace) -> None:
    """The real words of nft without a capability."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            try:
                Nft().apply(TABLE)
            except KernelError as error:
                code = 0 if error.code == "permission" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

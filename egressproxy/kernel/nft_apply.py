"""The one table in the kernel: checked, applied in one transaction, read back, removed.

Everything goes through nft(8), in the network namespace of the calling thread. Nothing here knows
what a policy is: it gets a script and gives back what the kernel holds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from ipaddress import ip_address
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from egressproxy.errors import KernelError
from egressproxy.kernel import nft_fault
from egressproxy.kernel.nft_fault import MIN_VERSION
from egressproxy.kernel.nft_spans import listed_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from egressproxy.kernel.nft_spans import Spans

FAMILY: Final = "inet"
TABLE: Final = "egressproxy"
DIGEST_COMMENT: Final = "policy "
"""A rule whose comment is this and a hex digest says what the table was made of.

(The table's own comment is set once when it is made, and nft does not list it as JSON.)
"""
OPTIONS_COMMENT: Final = ", options "
"""After that digest, and before the one of the operator's options."""
MAX_TIMEOUT_S: Final = 7 * 86400

_NAMED: Final = f"{FAMILY} {TABLE}"
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_SET_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST: Final = re.compile(
    rf"{DIGEST_COMMENT}([0-9a-f]{{8,64}})(?:{OPTIONS_COMMENT}([0-9a-f]{{8,64}}))?(?: .*)?"
)
_ELEMENTS_A_LINE: Final = 256
_OF_RANGES: Final = frozenset({"interval"})
_COUNTS: Final = ("packets", "bytes", "handle")
"""Keys that differ although nobody changed anything."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter's exact counts since it was made; ``comment`` is whose it is."""

    packets: int
    bytes: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SetState:
    """A named set; ``elements`` is how many it has, -1 where they were not asked for.

    ``spans`` are the addresses of a set of ranges; ``None`` for others, or where they are written
    in a form that is not known.
    """

    type: str
    flags: frozenset[str]
    elements: int = -1
    spans: Spans | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What the kernel holds of our table.

    ``digest`` and ``options`` are those of the rule with ``DIGEST_COMMENT``, or empty.
    ``fingerprint`` is a SHA-256 over chains, rules and sets, without counts, handles and the
    elements of sets: while it is the same, nobody has changed the table by hand. ``proxy_ports``
    are where rules take flows on this machine, by redirect or tproxy.
    """

    digest: str = ""
    options: str = ""
    proxy_ports: frozenset[int] = frozenset()
    fingerprint: str = ""
    chains: frozenset[str] = frozenset()
    sets: Mapping[str, SetState]
    counters: Mapping[str, Counter]


@dataclass(frozen=True, slots=True)
class SetChange:
    """What a set loses, and what it has for so many seconds from now; ``flush`` is all else."""

    name: str
    add: tuple[tuple[str, int], ...] = ()
    remove: tuple[str, ...] = ()
    flush: bool = False


class Nft:
    """nft(8); every call blocks, so asyncio calls it in a thread.

    Args:
        binary: name or path; a name is looked for in PATH, then in the system's own folders.
        timeout_s: for one call.
    """

    def __init__(self, binary: str = "nft", *, timeout_s: float = 30.0) -> None:
        self.binary = binary
        self.timeout_s = timeout_s

    def version(self) -> tuple[int, ...]:
        """The program's version, as (1, 0, 6).

        Raises:
            KernelError: there is no nft, or what answers is none.
        """
        return nft_fault.read_version(self._run("--version").stdout)

    def check(self, script: str) -> None:
        """Let the kernel say whether it would take the script; nothing changes.

        Raises:
            KernelError: it would not; with what nft said, and what to do.
        """
        if not self._is_new_enough:
            raise nft_fault.too_old(self.version())
        self._do("--check", "--file", "-", script=script)

    def apply(self, script: str) -> None:
        """Check, then apply in one transaction: all of it or nothing.

        Raises:
            KernelError: nothing was changed; with what nft said, and what to do. (``timeout``: it
                is not known.)
        """
        self.check(script)
        self._do("--file", "-", script=script)

    def table_state(self, *, elements: bool = False) -> TableState | None:
        """What the kernel holds; ``None`` where there is no table.

        Args:
            elements: read the elements of sets too: slower with thousands of prefixes.

        Raises:
            KernelError: nft cannot be asked.
        """
        terse = () if elements else ("--terse",)
        done = self._run("--json", *terse, "list", "table", FAMILY, TABLE)
        if done.returncode != 0:
            if nft_fault.is_absent(done.stderr):
                return None
            raise nft_fault.refusal(done.stderr)
        return read_listing(done.stdout, elements=elements)

    def timed_elements(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """The addresses of every set with timeouts, each with the seconds that it has left.

        Without those that have no timeout: none of ours.

        Raises:
            KernelError: nft cannot be asked, or there is no table.
        """
        done = self._run("--json", "list", "table", FAMILY, TABLE)
        if done.returncode != 0:
            raise nft_fault.refusal(done.stderr)
        return read_timed_elements(done.stdout)

    def add_elements(self, name: str, elements: Iterable[tuple[str, int]]) -> None:
        """Put addresses into a set, each for so many seconds; one that is in it gets the new time.

        One transaction, also for several thousand.

        Raises:
            KernelError: there is no such set, or an address is not of its type.
        """
        self.change_elements([SetChange(name, add=tuple(elements))])

    def remove_elements(self, name: str, addresses: Iterable[str]) -> None:
        """Take addresses out of a set; one that is not in it is no error.

        Raises:
            KernelError: there is no such set, or an address is not of its type.
        """
        self.change_elements([SetChange(name, remove=tuple(addresses))])

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        """``remove_elements`` and ``add_elements`` of several sets, in one transaction.

        Raises:
            KernelError: one of them is not there, or an address is not of its type: nothing was
                changed.
        """
        if script := "".join(line for change in changes for line in _change(change)):
            self._do("--file", "-", script=script)

    def remove(self) -> bool:
        """Delete the table; whether there was one.

        Raises:
            KernelError: it cannot be deleted.
        """
        done = self._run("delete", "table", FAMILY, TABLE)
        if done.returncode == 0:
            return True
        if nft_fault.is_absent(done.stderr):
            return False
        raise nft_fault.refusal(done.stderr)

    @cached_property
    def _is_new_enough(self) -> bool:
        return self.version() >= MIN_VERSION

    def _do(self, *arguments: str, script: str) -> None:
        done = self._run(*arguments, script=script)
        if done.returncode != 0:
            raise nft_fault.refusal(done.stderr)

    def _run(self, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
        program = shutil.which(self.binary, path=search_path(os.environ.get("PATH", "")))
        if program is None:
            raise nft_fault.missing_program(self.binary)
        try:
            return subprocess.run(  # noqa: S603 - nft, with arguments of ours
                [program, *arguments],
                input=script,
                capture_output=True,
                check=False,
                encoding="utf-8",
                errors="replace",
                env={"LC_ALL": "C", "PATH": _SYSTEM_PATH},
                timeout=self.timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise nft_fault.too_slow(self.timeout_s) from error
        except OSError as error:
            raise KernelError(f"{program}: {error.strerror}", hint=nft_fault.INSTALL) from error


def search_path(path: str) -> str:
    """Where root's programs are looked for: never in the folder that it happens to be in."""
    folders = (each for each in path.split(os.pathsep) if each.startswith("/"))
    return os.pathsep.join((*folders, _SYSTEM_PATH))


def read_listing(text: str, *, elements: bool) -> TableState:
    """What ``nft --json list table`` prints (libnftables-json(5)).

    Args:
        text: its output.
        elements: whether sets were listed with their elements.

    Raises:
        KernelError: it is something else.
    """
    try:
        entries = [next(iter(each.items())) for each in json.loads(text)["nftables"]]
        listed = [(kind, body) for kind, body in entries if kind != "metainfo"]
        rules = [body for kind, body in listed if kind == "rule"]
        digest, options = _digests(body.get("comment", "") for body in rules)
        return TableState(
            digest=digest,
            options=options,
            proxy_ports=frozenset(_proxy_ports(rules)),
            fingerprint=_fingerprint(listed),
            chains=frozenset(body["name"] for kind, body in listed if kind == "chain"),
            sets={b["name"]: _set(b, elements=elements) for kind, b in listed if kind == "set"},
            counters={
                body["name"]: Counter(
                    int(body["packets"]), int(body["bytes"]), str(body.get("comment", ""))
                )
                for kind, body in listed
                if kind == "counter"
            },
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ) as error:
        raise KernelError(
            "nft lists the table in a form that is not known", hint=nft_fault.INSTALL
        ) from error


def read_timed_elements(text: str) -> dict[str, tuple[tuple[str, int], ...]]:
    """The same from what ``nft --json list table`` prints.

    Raises:
        KernelError: it is something else.
    """
    try:
        listed = (entry["set"] for entry in json.loads(text)["nftables"] if "set" in entry)
        return {
            str(each["name"]): tuple(
                (str(item["elem"]["val"]), int(item["elem"]["expires"]))
                for item in each.get("elem", ())
                if isinstance(item, dict) and "expires" in item["elem"]
            )
            for each in listed
            if "timeout" in each.get("flags", ())
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KernelError(
            "nft lists the table in a form that is not known", hint=nft_fault.INSTALL
        ) from error


def _digests(comments: Iterable[str]) -> tuple[str, str]:
    """The policy's and the options'; empty where no comment says it."""
    found = (_DIGEST.fullmatch(comment) for comment in comments)
    return next(((each[1], each[2] or "") for each in found if each), ("", ""))


def _proxy_ports(rules: Iterable[Any]) -> Iterator[int]:
    for statement in chain.from_iterable(rule.get("expr", ()) for rule in rules):
        for verb in ("redirect", "tproxy"):
            body = statement.get(verb)
            if isinstance(body, dict) and isinstance(body.get("port"), int):
                yield body["port"]


def _fingerprint(listed: Iterable[tuple[str, Any]]) -> str:
    kept = [
        (kind, {key: value for key, value in body.items() if key not in (*_COUNTS, "elem")})
        for kind, body in listed
    ]
    # Named objects are listed in no order that means anything, rules in theirs.
    rules = [body for kind, body in kept if kind == "rule"]
    others = sorted(json.dumps(each, sort_keys=True) for each in kept if each[0] != "rule")
    return sha256(json.dumps([rules, others], sort_keys=True).encode()).hexdigest()


def _set(body: Any, *, elements: bool) -> SetState:
    type_, flags = str(body["type"]), frozenset(body.get("flags", ()))
    if not elements:
        return SetState(type_, flags)
    found = body.get("elem", ())
    spans = listed_spans(type_, found) if flags == _OF_RANGES else None
    return SetState(type_, flags, len(found), spans)


def _change(change: SetChange) -> Iterator[str]:
    if change.flush:
        yield f"flush set {_NAMED} {_set_name(change.name)}\n"
    yield from _delete_if_there(change.name, list(dict.fromkeys(map(_address, change.remove))))
    found = {_address(text): _timeout_s(seconds) for text, seconds in change.add}
    # Adding what is there leaves its time as it was (before Linux 6.13), and deleting what is not
    # there is an error: so both, and then anew. All of it happens at once.
    yield from _delete_if_there(change.name, list(found))
    timed = [f"{address} timeout {seconds}s" for address, seconds in found.items()]
    yield from _statements("add", change.name, timed)


def _delete_if_there(name: str, addresses: list[str]) -> Iterator[str]:
    yield from _statements("add", name, addresses)
    yield from _statements("delete", name, addresses)


def _statements(verb: str, name: str, elements: list[str]) -> Iterator[str]:
    """``add element …`` or ``delete element …``, some hundred elements a line."""
    checked = _set_name(name)
    remaining = iter(elements)
    while some := list(islice(remaining, _ELEMENTS_A_LINE)):
        yield f"{verb} element {_NAMED} {checked} {{ {', '.join(some)} }}\n"


def _set_name(text: str) -> str:
    if not _SET_NAME.fullmatch(text):
        raise KernelError(f"{text!r} is not a set's name")
    return text


def _address(text: str) -> str:
    """An address as nft reads it, and nothing else.

    Raises:
        KernelError: it is none.
    """
    try:
        found = ip_address(text)
    except ValueError as error:
        raise KernelError(f"{text[:64]!r} is no address for a set") from error
    return str(found).partition("%")[0]


def _timeout_s(seconds: int) -> int:
    """Whole seconds, one or more: nft reads 0 as for ever."""
    return max(1, min(int(seconds), MAX_TIMEOUT_S))

"""What nft(8) says when it fails, as an error that says what to do.

The kernel answers nft with bare error numbers, and a module that is missing as ENOENT or
EOPNOTSUPP at the statement that needs it; nft shows that statement. Nothing here runs anything.
"""

from __future__ import annotations

import re
from typing import Final

from egressproxy.errors import KernelError

INSTALL: Final = "apt install nftables (Azure Linux: tdnf install nftables)"
MIN_VERSION: Final = (1, 0, 6)

_MAX_LINES: Final = 6
_MAX_LINE: Final = 200
_VERSION: Final = re.compile(r"nftables v(\d{1,4}(?:\.\d{1,4}){1,3})\b")
_REFUSED: Final = re.compile(r"not permitted|Permission denied|must be root", re.IGNORECASE)
_LACKING: Final = re.compile(
    r"Could not process rule: (?:No such file or directory|.* not supported)"
)
_ABSENT: Final = re.compile(r"No such file or directory", re.IGNORECASE)
_MODULES: Final = (  # statement to the modules that have it; the first that is shown
    ("tproxy", "nft_tproxy nf_tproxy_ipv4 nf_tproxy_ipv6"),
    ("socket transparent", "nft_socket"),
    ("redirect", "nft_redir nft_chain_nat"),
    ("masquerade", "nft_masq nft_chain_nat"),
    ("type nat", "nft_chain_nat"),
    ("log", "nft_log nfnetlink_log"),
    ("reject", "nft_reject_inet"),
    ("fib", "nft_fib_inet"),
    ("limit", "nft_limit"),
    ("ct ", "nft_ct nf_conntrack"),
)


def missing_program(binary: str) -> KernelError:
    """There is no nft."""
    return KernelError(f"{binary}: there is no such program", hint=INSTALL, code="missing_program")


def too_slow(timeout_s: float) -> KernelError:
    """The nft program does not end."""
    return KernelError(f"nft did not end within {timeout_s:g} s", code="timeout")


def too_old(version: tuple[int, ...]) -> KernelError:
    """This nft is older than any that was tried."""
    found, wanted = (".".join(map(str, each)) for each in (version, MIN_VERSION))
    return KernelError(
        f"nft {found} is too old: {wanted} is the first that will do",
        hint="Debian 12, Ubuntu 24.04 and Azure Linux 3 have it",
        code="version",
    )


def read_version(text: str) -> tuple[int, ...]:
    """The version in what ``nft --version`` prints.

    Raises:
        KernelError: it is not what nft prints.
    """
    found = _VERSION.search(text[:_MAX_LINE])
    if found is None:
        said = bounded(text).partition("\n")[0]
        raise KernelError(f"nft --version says {said!r}", hint=INSTALL, code="version")
    return tuple(map(int, found[1].split(".")))


def refusal(said: str) -> KernelError:
    """Why nft did not do it, from what it wrote to stderr."""
    text = bounded(said)
    if _REFUSED.search(said):
        return KernelError(
            "nft may not change this machine's firewall",
            hint="it needs CAP_NET_ADMIN: run it as root",
            code="permission",
        )
    if _LACKING.search(said):
        modules = [names for statement, names in _MODULES if statement in said]
        if modules:
            return KernelError(
                f"the kernel lacks what the table needs: {text}",
                hint=f"modprobe -a {modules[0]}",
                code="module",
            )
    return KernelError(f"nft: {text or 'failed without a word'}", code="script")


def is_absent(said: str) -> bool:
    """Whether what was named is not there."""
    return bool(_ABSENT.search(said))


def bounded(said: str) -> str:
    """A few lines of what a program said, none of them long, nothing a terminal would obey."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip(" \t^~")]
    shown = [_printable(line[:_MAX_LINE]) for line in lines[:_MAX_LINES]]
    return "\n".join([*shown, *(["…"] if len(lines) > _MAX_LINES else [])])


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else " " for each in line)

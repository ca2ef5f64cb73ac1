"""``egressproxy check``: would the policy let a flow through, and why (not)."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, date, datetime
from datetime import time as day_time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from egressproxy.cli.explanation_page import as_json, facts, page
from egressproxy.cli.main import EXIT_ALLOW, EXIT_DENY, forget_stdout
from egressproxy.cli.target import TargetError, policy_option, read_flow, split_item, split_port
from egressproxy.errors import EgressproxyError
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.ports import Protocol
from egressproxy.resolve.explained import FORBIDDEN, NEVER_DIALLED, explained
from egressproxy.resolve.guard import is_never_dialled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.ruleset import Ruleset

MAX_LINE_OCTETS: Final = 1024

EXAMPLES: Final = """\b
egressproxy check github.com --policy policy.yaml
egressproxy check 20.1.2.3:443 --policy policy.yaml --from 10.240.0.4
egressproxy check ntp.ubuntu.com:123 --protocol udp --policy policy.yaml --json
echo "mcr.microsoft.com 443" | egressproxy check --batch --policy policy.yaml
egressproxy catalog names --cloud AzureCloud | egressproxy check --batch --policy policy.yaml
"""


def _moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """A UTC day (its noon) or a moment in ISO 8601, as POSIX seconds."""
    if text is None:
        return None
    try:
        if len(text) == len("2026-12-31"):
            moment = datetime.combine(date.fromisoformat(text), day_time(12), UTC)
        else:
            moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = f"{text!r} is not a date: write 2026-12-31 or 2026-12-31T23:59Z"
        raise click.BadParameter(hint) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.command(epilog=EXAMPLES)
@click.argument("target", metavar="NAME[:PORT]", required=False)
@policy_option
@click.option(
    "--allow-outside", is_flag=True, help="Files outside the policy's folder may be named."
)
@click.option("--from", "source", default="", metavar="IP", help="The client's address.")
@click.option(
    "--protocol",
    type=click.Choice([str(protocol) for protocol in Protocol]),
    help="Default: tcp for an address, http for port 80, tls otherwise.",
)
@click.option(
    "--at", "now", callback=_moment, metavar="DATE", help="As of this UTC date. Default: now."
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
@click.option(
    "--batch",
    is_flag=True,
    help="Read lines 'name port [source]' from stdin, write one JSON object each. Ends with 0."
    " A port is a number, or as in policies: https, udp:123.",
)
def command(
    target: str | None,
    policy_file: Path,
    source: str,
    protocol: str | None,
    now: float | None,
    *,
    allow_outside: bool,
    is_json: bool,
    batch: bool,
) -> None:
    """Would the policy let a client reach NAME, and why?

    Ends with 0 for allow, 1 for deny, 2 where the question or the policy cannot be read. Without
    --from the client is in no group of the policy's sources. With --batch, a line that cannot be
    read gives an object with "line" and "error"; the end is 0 whatever the verdicts are.
    """
    if batch == (target is not None):
        raise click.UsageError("give NAME[:PORT], or --batch and lines on stdin")
    policy = load_policy(policy_file, allow_outside=allow_outside)
    ruleset = compile_policy(policy)
    now = time.time() if now is None else now
    wanted = Protocol(protocol) if protocol else None
    if batch:
        answers = judge_lines(sys.stdin.buffer, ruleset, wanted, source=source, now=now)
        _write_lines(answers)
        return
    flow = read_flow(*split_port(target or ""), wanted, source)
    explanation = explained(policy, ruleset, flow, now)
    if is_json:
        click.echo(json.dumps(as_json(explanation), indent=2, ensure_ascii=False))
    else:
        colour = False if os.environ.get("NO_COLOR") else None
        for line in page(explanation):
            click.echo(line, color=colour)
    sys.exit(EXIT_ALLOW if explanation.verdict.is_allow else EXIT_DENY)


def judge_lines(
    lines: BinaryIO, ruleset: Ruleset, protocol: Protocol | None, *, source: str, now: float
) -> Iterator[str]:
    """A JSON object for each line that is not blank, in order; memory does not grow."""
    for number, line in enumerate(_bounded_lines(lines), 1):
        try:
            words = _words(line)
            if not words:
                continue
            name, item, src = (*words, source)[:3]
            flow = read_flow(name, *split_item(item, protocol), src)
        except EgressproxyError as error:
            yield json.dumps({"line": number, "error": str(error)})
            continue
        if flow.dst is not None and is_never_dialled(flow.dst):
            yield json.dumps(facts(flow, FORBIDDEN, NEVER_DIALLED))
            continue
        verdict = ruleset.decide(flow, now)
        is_denied = not verdict.is_allow or verdict.would_deny
        note = ruleset.note(flow.name) if is_denied and flow.name else ""
        yield json.dumps(facts(flow, verdict, note))


def _words(line: bytes) -> list[str]:
    if len(line) > MAX_LINE_OCTETS:
        raise TargetError(f"a line of more than {MAX_LINE_OCTETS} octets")
    try:
        words = line.decode().split()
    except UnicodeDecodeError as error:
        raise TargetError("a line that is not UTF-8") from error
    if words and not 2 <= len(words) <= 3:
        wrong = "a port is wanted" if len(words) == 1 else f"{len(words)} words"
        raise TargetError(wrong, hint="write name port [source]")
    return words


def _bounded_lines(lines: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long, enough to see that it is."""
    while line := lines.readline(MAX_LINE_OCTETS + 1):
        yield line
        while len(line) > MAX_LINE_OCTETS and not line.endswith(b"\n"):
            line = lines.readline(MAX_LINE_OCTETS + 1)


def _write_lines(answers: Iterator[str]) -> None:
    """Each line at once, so that a program can ask and wait for its answer."""
    try:
        for answer in answers:
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        forget_stdout()

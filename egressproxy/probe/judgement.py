"""What an attempt means, as a finding: how bad, why, and what to do.

A sample below a wildcard is made up: that it does not exist says nothing, and nothing that happens
to it is worse than a warning.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import Finding, Level, fail, ok, warn
from egressproxy.ports import Protocol
from egressproxy.probe.attempt import Step
from egressproxy.resolve.cache import Failure

if TYPE_CHECKING:
    from egressproxy.probe.attempt import Attempt

SOON_S: Final = 14 * 86400
_UNTRUSTED: Final = frozenset({18, 19, 20, 21})
"""X509_V_ERR_…: self-signed, self-signed in the chain, issuer not found, first not verified."""
_NOT_THERE: Final = frozenset({Failure.NXDOMAIN, Failure.NO_ADDRESS})
_API_SERVER: Final = "#api-server"
"""An AKS API server's certificate is signed by its own cluster's CA."""


def judged(attempt: Attempt, now: float) -> Finding:
    """The finding of one attempt; ``now`` is POSIX seconds."""
    opening = attempt.opening
    check = f"{opening.name} {opening.protocol}:{opening.port}"
    if opening.is_sample:
        check += " (sample)"
        if attempt.step is Step.RESOLVE and attempt.error in _NOT_THERE:
            return ok(check, f"{attempt.error}, a made-up name below a wildcard: nothing is shown")
    finding = _done(check, attempt, now) if attempt.step is Step.DONE else _failed(check, attempt)
    if opening.is_sample and finding.level is Level.FAIL:
        return replace(finding, level=Level.WARN)
    return finding


def _done(check: str, attempt: Attempt, now: float) -> Finding:
    if attempt.opening.protocol is Protocol.UDP:
        return ok(check, f"resolves, {attempt.address}; UDP gives no sign, nothing was sent")
    words = [
        attempt.address,
        attempt.tls_version,
        attempt.alpn,
        f"status {attempt.http_status}" if attempt.http_status else "",
        f"by {attempt.issuer}" if attempt.issuer else "",
        f"{attempt.seconds * 1000:.0f} ms",
    ]
    seen = ", ".join(word for word in words if word)
    left_s = _expiry(attempt.not_after) - now if attempt.not_after else SOON_S
    if left_s < SOON_S:
        days = f"its certificate ends in {left_s / 86400:.0f} days"
        return warn(check, f"{seen}; {days}", "clients will refuse it then", "tell who runs it")
    return ok(check, seen)


def _failed(check: str, attempt: Attempt) -> Finding:
    opening, rule = attempt.opening, attempt.opening.rule
    where = f"{attempt.address} port {opening.port}"
    match attempt.step:
        case Step.WAIT:
            fix = "--deadline-s 300 --jobs 64, or name those that matter"
            return fail(check, "not done in time", "nothing is known of it", fix)
        case Step.RESOLVE:
            why = "clients get resolve_failed: the gateway's DNS has no address for it"
            return fail(
                check, attempt.error, why, f"dig {opening.name}   # or --dns with another server"
            )
        case Step.GUARD:
            seen = f"{', '.join(attempt.addresses[:3])} may not be dialled"
            why = "clients get forbidden_address: a private zone, and the rule does not list it"
            fix = f"addresses: [{attempt.addresses[0]}]   # in {rule.id} ({rule.origin})"
            return fail(check, seen, why, fix)
        case Step.CONNECT:
            why = "clients get dial_failed: route, NSG, or a firewall behind this one"
            return fail(
                check, f"{where}: {attempt.error}", why, f"nc -vz {where.replace(' port', '')}"
            )
        case Step.CERTIFICATE:
            return _certificate(check, attempt)
        case _:
            why = f"connects, and then no {attempt.step}: something on the way refuses the name"
            scheme = "http" if attempt.step is Step.HTTP else "https"
            fix = f"curl -vI {scheme}://{opening.name}:{opening.port}/"
            return fail(check, f"{where}: {attempt.error}", why, fix)


def _certificate(check: str, attempt: Attempt) -> Finding:
    seen = f"{attempt.address}: {attempt.error}"
    if attempt.verify_code in _UNTRUSTED:
        fix = "--ca-file ca.pem   # trusts that CA beside this machine's own"
        if attempt.opening.rule.id.endswith(_API_SERVER):
            return warn(check, seen, "as is usual: the cluster's own CA signs its API server", fix)
        why = (
            "a private CA, or somebody between here and there who opens TLS: clients refuse it, too"
        )
        return fail(check, seen, why, fix)
    return fail(check, seen, "clients refuse it, too", "date; dig, from here and from elsewhere")


def _expiry(text: str) -> float:
    """``Jun  9 12:00:00 2027 GMT`` as POSIX seconds; far away where it cannot be read."""
    try:
        return ssl.cert_time_to_seconds(text)
    except ValueError:
        return datetime(9999, 1, 1, tzinfo=UTC).timestamp()

"""What a scene of the demo works with: the stage, the gateway, clients, and expectations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab import sites
from lab.programs import Finished, client, how_to_install, missing
from lab.tls_client import Offer, alert_of, open_tls

if TYPE_CHECKING:
    from lab.gateway import Gateway
    from lab.stage import Stage
    from lab.tls_client import TlsClient


@dataclass(frozen=True, slots=True)
class Play:
    """What every scene needs."""

    stage: Stage
    gateway: Gateway
    policy: str

    def run(self, *argv: str, stdin: str = "", shown: tuple[str, ...] = ()) -> Finished:
        """Run a client in the spoke, showing the command and what it said."""
        self.stage.command(shown or argv)
        lab = self.gateway.lab
        done = client(lab.net.spoke, *argv, stdin=stdin, environment=lab.trust)
        self.stage.said(done.text)
        return done

    def has(self, *programs: str) -> bool:
        """Whether these programs are there; where not, the audience is told."""
        lacking = missing(*programs)
        if lacking:
            self.stage.skip(" and ".join(lacking), f"not installed ({how_to_install(lacking)})")
        return not lacking

    def expect(self, action: str, reason: str, *, skip: int, **fields: Any) -> None:
        """Check that the gateway recorded this, and say it in a sentence."""
        try:
            record = self.gateway.record(skip=skip, action=action, reason=reason, **fields)
        except TimeoutError as error:
            what = fields.get("name") or fields.get("dst_ip")
            self.stage.check(False, f"{action} of {what} ({reason})", str(error))
            return
        self.stage.check(True, sentence(record))

    def tls(self, address: str, offer: Offer) -> TlsClient:
        """A connection from the spoke with the ClientHello sent."""
        lab = self.gateway.lab
        return open_tls(lab.net.spoke.connect(address, 443), offer, lab.authority.ca_file)

    def is_allowed(self, name: str) -> bool:
        """Whether a name gets through at this moment: a ClientHello is answered by a server.

        A reset is a no: the worker that let it through took the new policy just then.
        """
        with self.tls(sites.addresses_of(name)[0], Offer(name)) as probe:
            try:
                return alert_of(probe.connection.recv(4096)) is None
            except ConnectionResetError:
                return False


def sentence(record: dict[str, Any]) -> str:
    """A flow record in words."""
    what = record["name"] or f"{record['dst_ip']}:{record['dst_port']}"
    if record["action"] == "allow":
        carried = f", ALPN {' '.join(record['alpn'])} untouched" if record["alpn"] else ""
        return f"allowed: {what} by {record['rule']}{carried}, dialled {record['dialled_ip']}"
    by = f" by {record['rule']}" if record["rule"] else ""
    note = f"; note: {record['note']}" if record["note"] else ""
    return f"refused: {what}, reason {record['reason']}{by}{note}"

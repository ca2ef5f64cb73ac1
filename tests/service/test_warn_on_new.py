"""The whole service under ``mode: warn-on-new``: new names pass, old ones do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.review.records import flow
from tests.service.running import ECHO, POLICY, UPSTREAM, poll, records_in, running

if TYPE_CHECKING:
    from tests.service.running import Service, World

pytestmark = pytest.mark.netns

WARNING = POLICY.replace("rules:", "mode: warn-on-new\nwarn_until: 2999-12-31\nrules:")


def reasons(service: Service, name: str) -> list[str]:
    """Why CONNECTs to a name were refused, by its records."""
    return [each["reason"] for each in records_in(service.folder / "flows") if each["name"] == name]


def try_once(service: Service, name: str) -> str:
    before = len(reasons(service, name))
    with service.connect() as connection:
        status, _ = service.try_tunnel(connection, ECHO, name)
    assert status == 403
    poll(f"a record of {name}", lambda: len(reasons(service, name)) > before)
    return reasons(service, name)[-1]


def test_new_names_pass_and_known_ones_do_not(gate: World) -> None:
    """No rule gives a new name private addresses, so what passes here is refused at the dial."""
    place = gate.folder / "warning.db"
    with open_store(str(place)) as store:
        long_ago = time.time() - 8 * 86400
        writer = Writer(store, gateway="gw", bounds=Bounds())
        writer.add([flow(name="old.test", time=long_ago)])
    named = [f"--resolve={name}={UPSTREAM}" for name in ("old.test", "new.test")]
    with running(gate, "--review-store", str(place), *named, policy=WARNING) as service:
        service.wait_for("names that are not new are known", names=1)
        assert try_once(service, "new.test") == "forbidden_address"
        assert try_once(service, "old.test") == "default_deny"
        service.tunnel().close()


def test_without_a_store_it_enforces_and_says_so(gate: World) -> None:
    named = f"--resolve=new.test={UPSTREAM}"
    with running(gate, named, policy=WARNING) as service:
        said = service.wait_for("warn-on-new enforces: every name counts as known")
        assert said["why"] == "there is no review store"
        assert try_once(service, "new.test") == "default_deny"

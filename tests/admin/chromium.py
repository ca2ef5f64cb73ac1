"""A real browser in front of the real admin listener, with a store that has a day in it.

``site`` serves what ``open_site`` makes; ``tab`` is a page of a fresh profile that fails its test
on anything a browser complains of: a script error, a breach of the content security policy, a
request that leaves the machine. ``EGRESSPROXY_SCREENSHOTS=FOLDER`` keeps what ``shoot`` takes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ViewportSize, sync_playwright

from egressproxy.admin.options import AdminOptions
from egressproxy.admin.server import serve_admin
from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from egressproxy.service.options import Endpoint
from lab.clients import CHROMIUM
from tests.admin.double import CLUSTER_POLICY, FakeSupervisor, serving_supervisor
from tests.review.records import DAY_S, INTRUDER, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

    from egressproxy.review.store import Store

SWITCHES: Final = CHROMIUM[2:]
"""Without the program and ``--headless``, which the driver brings."""
PHONE: Final = ViewportSize(width=390, height=844)
DESK: Final = ViewportSize(width=1280, height=900)
_LOOKS: Final[tuple[tuple[str, Literal["light", "dark"], ViewportSize], ...]] = (
    ("light", "light", DESK),
    ("dark", "dark", DESK),
    ("phone", "light", PHONE),
)
GOLDEN: Final = 0x9E3779B97F4A7C15F3
"""Its multiples look random: names that carry data."""
HOSTILE: Final = (
    "<script>document.title='owned'</script>.evil.example",
    '"><img src=x onerror="document.title=\'owned\'">.evil.example',
    "'; DROP TABLE subject; --.evil.example",
    "\u202egpj.elpmaxe\u2066.evil.example",
    "a\x00b\x1b[31mred\r\nSet-Cookie: x=1.evil.example",
    "{{ 7 * 7 }}{% raw %}.evil.example",
    "javascript:alert(1)//.evil.example",
    "../../../etc/passwd?x=1&y=2#z.evil.example",
    "مثال.evil.example",
    "x" * 240 + ".evil.example",
)
"""Names as a client, or an imported log, may have them."""


@dataclass
class Site:
    """A listener that serves; ``writer`` adds records to its store while it does."""

    base: str
    supervisor: FakeSupervisor
    writer: Writer | None

    def url(self, path: str) -> str:
        """The whole address of a page."""
        return self.base + path

    def deny(self, name: str | None, **fields: Any) -> None:
        """Store one more deny, of now."""
        assert self.writer is not None
        self.writer.add([a_deny(name, **fields)])


def a_deny(name: str | None, **fields: Any) -> FlowRecord:
    """A denied flow of now."""
    record = FlowRecord(
        time=time.time(),
        flow_id="0-19f3a2b4c00-1",
        src_port=40000,
        action=Action.DENY,
        reason=Reason.DEFAULT_DENY,
        plane=Plane.TRANSPARENT,
        protocol="tls",
        src_ip="10.244.3.14",
        dst_port=443,
        source_group="lab",
        dst_ip="203.0.113.7",
        name=name,
        name_source=NameSource.SNI if name else NameSource.NONE,
        close_reason="refused",
    )
    return record._replace(**fields)


@contextmanager
def open_site(
    folder: Path,
    *,
    records: Iterable[FlowRecord] | None = None,
    policy: str = CLUSTER_POLICY,
    token: str = "",
    read_token: str = "",
) -> Iterator[Site]:
    """Serve on loopback, in a thread of its own, with these records (``None``: without a store)."""
    place = None if records is None else str(folder / "review.db")
    with serving_supervisor(folder, policy, store=place) as supervisor:
        store: Store | None = None
        writer = None
        if place is not None:
            store = open_store(place)
            writer = Writer(store, gateway="hub-nva-1", bounds=Bounds())
            writer.add(list(records or ()))
        try:
            with listening(supervisor, token, read_token) as base:
                yield Site(base, supervisor, writer)
        finally:
            if store is not None:
                store.close()


@contextmanager
def listening(supervisor: FakeSupervisor, token: str = "", read_token: str = "") -> Iterator[str]:
    """The admin listener on a loop of its own thread; the answer is where."""
    place: list[str] = []
    is_up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        options = AdminOptions(Endpoint("127.0.0.1", 0), token, read_token)
        async with serve_admin(supervisor.as_supervisor, options) as at:
            place.append(at)
            is_up.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            is_up.set()
            loop.close()

    thread = threading.Thread(target=run, name="admin")
    thread.start()
    assert is_up.wait(10)
    assert place
    try:
        yield place[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


def a_day(count: int = 6000) -> list[FlowRecord]:
    """The last day of a cluster, ending now, with a tunnel and hostile names at its end."""
    now = time.time()
    records = list(traffic(count, start=now - DAY_S, span_s=DAY_S - 60))
    tunnel = [
        a_deny(f"{n * GOLDEN:024x}.t.exfil.example", time=now - 3000 + n, src_ip=INTRUDER)
        for n in range(1, 60)
    ]
    hostile = [a_deny(name, time=now - 30 + n) for n, name in enumerate(HOSTILE)]
    return [*records, *tunnel, *hostile]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module, whose tests are not async: playwright's loop runs meanwhile."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of; a test that means to provoke some clears it."""
    return []


@pytest.fixture
def tab(chromium: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page in a fresh profile."""
    with new_tab(chromium, complaints) as page:
        yield page
    assert not complaints


@contextmanager
def new_tab(browser: Browser, complaints: list[str], **options: Any) -> Iterator[Page]:
    """A page in a fresh profile; ``options`` are those of playwright's ``new_context``."""
    settings: dict[str, Any] = {"viewport": DESK, "color_scheme": "light", **options}
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(10_000)
    _listen(page, complaints)
    try:
        yield page
    finally:
        context.close()


def _listen(page: Page, complaints: list[str]) -> None:
    def on_console(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    def on_request(asked: Request) -> None:
        if urlsplit(asked.url).hostname not in ("127.0.0.1", None):
            complaints.append(f"it asked {asked.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", on_request)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway with a day in its store, shared by all tests that only read."""
    with open_site(tmp_path_factory.mktemp("site"), records=a_day()) as opened:
        yield opened


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """``shoot(page, "overview")`` takes pictures: wide, dark, phone."""

    def take(page: Page, name: str) -> None:
        folder = os.environ.get("EGRESSPROXY_SCREENSHOTS")
        if not folder:
            return
        for kind, scheme, size in _LOOKS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            page.screenshot(path=Path(folder) / f"{name}-{kind}.png", full_page=True)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(DESK)

    return take


def fits(page: Page) -> bool:
    """Whether the page is no wider than its window: nobody scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

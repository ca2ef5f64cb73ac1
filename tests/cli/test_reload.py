"""``egressproxy reload``: whom it asks, how, and what it makes of any answer."""

from __future__ import annotations

import json
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from egressproxy.cli import reload
from egressproxy.errors import Problem, ServiceError
from egressproxy.service.report import Installation, Outcome, ReloadReport, Trigger, report_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "correct-horse-battery-staple"
APPLIED = ReloadReport(
    outcome=Outcome.APPLIED,
    triggers=(Trigger.ADMIN,),
    at=1_790_000_000.0,
    digest="ab" * 32,
    duration_s=1.2345,
    previous="cd" * 32,
    changes=("+ rule rules/two: allow two.test on tls:443",),
    installation=Installation(workers=2, revoked=3, kept=4),
)
REFUSED = ReloadReport(
    outcome=Outcome.REFUSED,
    triggers=(Trigger.ADMIN,),
    at=1_790_000_000.0,
    digest="ab" * 32,
    error="the policy is bad",
    problems=(Problem("policy.yaml", 3, 5, "no such key\x1b[2J", "did you mean?"),),
)
FAILED = ReloadReport(
    outcome=Outcome.FAILED,
    triggers=(Trigger.ADMIN,),
    at=1_790_000_000.0,
    digest="ab" * 32,
    error="worker 1 did not answer",
)


class Service:
    """Answers every request with ``status`` and ``body``; remembers what was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def answer(self, report: ReloadReport) -> None:
        self.body = json.dumps(report_view(report)).encode()

    def handler(service) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has its own self
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.command, self.path, headers))
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(service.body)))
                self.end_headers()
                self.wfile.write(service.body)

            def log_message(self, *_: Any) -> None:
                pass

            def address_string(self) -> str:
                return "a client"

        return Handler


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def place(service: Service) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), service.handler())
    with serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


def run(*words: str, **environment: str) -> Result:
    done = CliRunner(env=environment).invoke(reload.command, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


PAGES = {
    "applied": (
        APPLIED,
        0,
        "applied: the files are in force, policy abababababab (was cdcdcdcdcdcd)\n"
        "  + rule rules/two: allow two.test on tls:443\n"
        "  in 1,234 ms by 2 workers; open flows that it denies: 3 ended, 4 left open\n",
    ),
    "refused": (
        REFUSED,
        1,
        "refused: the old policy stays, policy abababababab\n"
        "  the policy is bad\n"
        "  policy.yaml:3:5: no such key\N{REPLACEMENT CHARACTER}[2J, hint: did you mean?\n",
    ),
    "failed": (
        FAILED,
        2,
        "failed: the old policy stays, and it is tried again, policy abababababab\n"
        "  worker 1 did not answer\n",
    ),
}


@pytest.mark.parametrize(("report", "code", "text"), PAGES.values(), ids=PAGES)
def test_what_became_of_it(
    service: Service, place: str, report: ReloadReport, code: int, text: str
) -> None:
    service.answer(report)
    done = run("--admin", place)
    assert (done.exit_code, done.output) == (code, text)
    assert json.loads(run("--admin", place, "--json").output) == report_view(report)


@pytest.mark.parametrize(("words", "path"), [((), "/reload"), (("--force",), "/reload?force=1")])
def test_how_it_asks(
    service: Service, place: str, words: tuple[str, ...], path: str, tmp_path: Path
) -> None:
    service.answer(APPLIED)
    (tmp_path / "token").write_text(TOKEN)
    run("--admin", place, "--admin-token-file", str(tmp_path / "token"), *words)
    ((method, asked, headers),) = service.asked
    assert (method, asked) == ("POST", path)
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-egressproxy"] == "yes"
    assert headers["host"] == place


def test_over_a_unix_socket(service: Service, tmp_path: Path) -> None:
    service.answer(APPLIED)
    path = tmp_path / "admin.sock"
    with serving(UnixServer(str(path), service.handler())):
        assert run("--admin", f"unix:{path}").exit_code == 0
    assert service.asked[0][2]["host"] == "localhost"
    assert "authorization" not in service.asked[0][2]


def test_where_the_service_s_file_or_environment_says(
    service: Service, place: str, tmp_path: Path
) -> None:
    service.answer(APPLIED)
    (tmp_path / "token").write_text(TOKEN)
    port = place.rpartition(":")[2]
    config = tmp_path / "config.yaml"
    config.write_text(
        f"policy: p.yaml\nadmin: '0.0.0.0:{port}'\nadmin_token_file: {tmp_path}/token\n"
        "management: none\n"
    )
    assert run("--config", str(config)).exit_code == 0
    assert service.asked[-1][2]["authorization"] == f"Bearer {TOKEN}"
    assert run(EGRESSPROXY_ADMIN=place).exit_code == 0
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("admin", "url"),
    [
        (":9090", "http://[::1]:9090"),
        ("0.0.0.0:9090", "http://127.0.0.1:9090"),
        ("10.0.0.4:9090", "http://10.0.0.4:9090"),
        ("[2001:db8::4]:9090", "http://[2001:db8::4]:9090"),
    ],
)
def test_a_listener_on_every_address_is_asked_on_loopback(admin: str, url: str) -> None:
    assert reload.read_place(None, {"admin": admin}, {}).url == url


ANSWERS = {
    "a token is wanted": (401, b'{"error": "a token is wanted"}', "hint: --admin-token-file FILE"),
    "draining": (503, b'{"error": "no reload while draining"}', "no reload while draining"),
    "another server": (200, b"<html>", "not as egressproxy does"),
    "another object": (200, b'{"outcome": 7}', "not as egressproxy does"),
    "no object": (200, b"[]", "not as egressproxy does"),
    "deep": (200, b"[" * 100_000, "not as egressproxy does"),
    "empty": (204, b"", "not as egressproxy does"),
    "elsewhere": (302, b"", "answers 302"),
}


@pytest.mark.parametrize(("status", "body", "text"), ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_report_is_an_error(
    service: Service, place: str, status: int, body: bytes, text: str
) -> None:
    service.status, service.body = status, body
    with pytest.raises(ServiceError) as caught:
        run("--admin", place)
    assert text in str(caught.value)


def test_odd_answers_are_shown_all_the_same(service: Service, place: str) -> None:
    service.body = json.dumps(
        {"outcome": "\x1b[31m", "changes": 7, "problems": [3, {}], "digest": ["x"]}
    ).encode()
    done = run("--admin", place)
    assert done.exit_code == 2
    assert "\x1b" not in done.output


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"No such file or directory \(hint: is the service"):
        run("--admin", f"unix:{tmp_path}/none.sock")
    with pytest.raises(ServiceError, match="Connection refused"):
        run("--admin", "127.0.0.1:1")
    with pytest.raises(ServiceError, match="has no admin listener"):
        run("--admin", "none")
    with pytest.raises(ServiceError, match="is not ADDR:PORT"):
        run("--admin", "nonsense")

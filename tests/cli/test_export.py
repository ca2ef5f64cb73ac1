"""``egressproxy export``: every form and target, odd files, a receiver that is slow or away."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from egressproxy.cli import export as module
from egressproxy.cli.export import FORMATS, command
from egressproxy.cli.main import EXIT_ERROR
from egressproxy.errors import ServiceError
from egressproxy.observe.record import to_json_line
from tests.export.collector import attributes_in, collector
from tests.export.records import record

if TYPE_CHECKING:
    from click.testing import Result
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

HOSTILE = '</script>"]|%$\x1b[31m\u202eevil'
NAMES = ["a.example", HOSTILE, "c.example"]
LINES = [to_json_line(record(name=name)) for name in NAMES]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("flows.jsonl").write_bytes(b"".join(LINES))
    return tmp_path


def run(*arguments: str, code: int = 0, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(command, arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def names_in(rows: bytes, form: str) -> list[str]:
    key = "Fqdn" if form == "azure" else "name"
    return [json.loads(row[row.index(b"{") :])[key] for row in rows.splitlines()]


@pytest.mark.parametrize("form", FORMATS)
def test_forms(form: str) -> None:
    rows = run("--format", form, "--gateway", "hub-1", "flows.jsonl").stdout_bytes
    assert rows.isascii()
    assert b"\x1b" not in rows
    assert names_in(rows, form) == NAMES
    match form:
        case "json":
            assert rows == b"".join(LINES)
        case "azure":
            assert {json.loads(row)["Action"] for row in rows.splitlines()} == {"Deny"}
        case _:
            assert all(b" hub-1 egressproxy - default_deny " in row for row in rows.splitlines())


def test_several_logs_packed_and_piped_are_one_stream() -> None:
    Path("old.gz").write_bytes(gzip.compress(LINES[0]))
    rows = run("--format", "json", "old.gz", "-", "flows.jsonl", stdin=LINES[2]).stdout_bytes
    assert names_in(rows, "json") == [NAMES[0], NAMES[2], *NAMES]


def test_what_is_no_record_is_counted_with_the_first_lines() -> None:
    bad = b"junk\n" * 6
    Path("odd").write_bytes(LINES[0] + b"\n" + bad + b"x" * 100_000 + b"\n" + LINES[1])
    result = run("--format", "json", "odd")
    assert names_in(result.stdout_bytes, "json") == NAMES[:2]
    assert result.stderr == "warning: odd: 7 lines are no records (line 3, 4, 5, 6, 7, …)\n"


def test_a_file_that_cannot_be_read_does_not_hide_the_others() -> None:
    Path("cut.gz").write_bytes(gzip.compress(b"".join(LINES) * 200)[:-9])
    result = run("--format", "json", "none", "cut.gz", "flows.jsonl", code=EXIT_ERROR)
    assert names_in(result.stdout_bytes, "json")[-3:] == NAMES
    assert "egressproxy: none: cannot be read: No such file or directory\n" in result.stderr
    assert "egressproxy: cut.gz: damaged or not complete: " in result.stderr


def test_the_schema_is_one_of_what_is_written() -> None:
    schema = json.loads(run("--schema").stdout)
    for row in run("--format", "json", "flows.jsonl").stdout_bytes.splitlines():
        Draft202012Validator(schema).validate(json.loads(row))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which log?"),
        (("flows.jsonl",), "give either --to TARGET or --format FORMAT"),
        (("--to", "azure:x", "--format", "json", "flows.jsonl"), "give either --to"),
        (("--format", "xml", "flows.jsonl"), "'xml' is not one of"),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], said: str) -> None:
    assert said in run(*arguments, code=2).stderr


@pytest.mark.parametrize(
    "arguments", [("--to", "kafka:x"), ("--to", "azure:no/where"), ("--gateway", "\n")]
)
def test_what_cannot_be_had(arguments: tuple[str, ...]) -> None:
    form = () if "--to" in arguments else ("--format", "json")
    with pytest.raises(ServiceError):
        run(*arguments, *form, "flows.jsonl")


def test_to_azure() -> None:
    result = run("--to", "azure:tables", "flows.jsonl")
    rows = Path("tables/AZFWApplicationRule.json").read_bytes()
    assert names_in(rows, "azure") == NAMES
    assert result.stderr == "3 records delivered to azure:tables\n"


def test_to_otlp() -> None:
    requests: list[ExportLogsServiceRequest] = []
    with collector(requests) as url:
        run("--to", f"otlp:{url}", "flows.jsonl")
    assert [each["server.address"] for each in attributes_in(requests)] == NAMES


def test_more_than_may_wait_is_delivered_at_the_receivers_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 600)
    monkeypatch.setattr("egressproxy.export.syslog_sender.MAX_WAITING", 600)
    Path("long").write_bytes(b"".join(LINES) * 1000)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    received.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        result = run("--to", f"syslog:tcp://127.0.0.1:{port}", "long")
        thread.join(20.0)
    assert b"".join(received).count(b" egressproxy - default_deny ") == 3000
    assert result.stderr == f"3,000 records delivered to syslog:tcp://127.0.0.1:{port}\n"


def test_a_receiver_that_is_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr("egressproxy.export.syslog_sender.CLOSE_S", 0.1)
    with pytest.raises(ServiceError, match=r"none: .*No such file.*; 0 records were delivered"):
        run("--to", "syslog:unix:none", "flows.jsonl")


def test_a_full_disk_is_told_with_what_arrived() -> None:
    Path("tables").mkdir()
    Path("tables/AZFWApplicationRule.json").symlink_to("/dev/full")
    with pytest.raises(ServiceError, match=r"is the disk full\?; 0 records were delivered"):
        run("--to", "azure:tables", "flows.jsonl")


def test_memory_does_not_grow_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are written as they are read."""
    written: list[int] = []

    class Out(io.BytesIO):
        def write(self, data: Any, /) -> int:
            written.append(bytes(data).count(b"\n"))
            return len(data)

    Path("long").write_bytes(LINES[0] * (module.BATCH * 3 + 1))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=Out()))
    module._print(module._Log("long").records(), to_json_line)
    assert written == [module.BATCH] * 3 + [1]

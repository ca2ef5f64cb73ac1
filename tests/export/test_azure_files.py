"""A file a table, rows as lines, rotated; a full disk loses and counts."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from egressproxy.errors import ServiceError
from egressproxy.export.azure_files import AzureFiles
from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Reason
from tests.export.records import record

APPLICATION = "AZFWApplicationRule.json"


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_record_goes_to_its_table(tmp_path: Path) -> None:
    folder = tmp_path / "azure"
    files = AzureFiles(folder, rotate_bytes=0, rotate_files=1)
    files.take([record(), record(protocol="udp", plane=Plane.NETWORK), record(name="b.example")])
    files.take([record(reason=Reason.DNS_REFUSED)])
    files.close()
    assert [row["Fqdn"] for row in rows(folder / APPLICATION)] == ["evil.example", "b.example"]
    assert [row["Protocol"] for row in rows(folder / "AZFWNetworkRule.json")] == ["UDP"]
    assert [row["ResponseCode"] for row in rows(folder / "AZFWDnsQuery.json")] == ["REFUSED"]
    assert files.lost == 0


def test_a_second_start_goes_on_in_the_same_files(tmp_path: Path) -> None:
    for name in ("a.example", "b.example"):
        files = AzureFiles(tmp_path, rotate_bytes=0, rotate_files=1)
        files.take([record(name=name)])
        files.close()
    assert [row["Fqdn"] for row in rows(tmp_path / APPLICATION)] == ["a.example", "b.example"]


def test_files_rotate(tmp_path: Path) -> None:
    files = AzureFiles(tmp_path, rotate_bytes=500, rotate_files=2)
    for number in range(4):
        files.take([record(name=f"n{number}.example")])
    files.close()
    kept = [rows(tmp_path / f"{APPLICATION}{end}")[0]["Fqdn"] for end in (".2", ".1", "")]
    assert kept == ["n1.example", "n2.example", "n3.example"]


def test_another_renames_the_file(tmp_path: Path) -> None:
    files = AzureFiles(tmp_path, rotate_bytes=0, rotate_files=1)
    (tmp_path / APPLICATION).rename(tmp_path / "old")
    files.reopen()
    files.take([record()])
    files.close()
    assert len(rows(tmp_path / APPLICATION)) == 1


def test_what_a_full_disk_refuses_is_counted_and_told(tmp_path: Path) -> None:
    path = tmp_path / APPLICATION
    path.symlink_to("/dev/full")
    files = AzureFiles(tmp_path, rotate_bytes=0, rotate_files=1)
    files.take([record(), record(), record(protocol="udp", plane=Plane.NETWORK)])
    assert files.lost == 2, "the other table's disk is not full"
    assert files.trouble, "which does not mend this one"
    files.take([record()])
    assert (files.lost, files.trouble) == (3, f"{APPLICATION} cannot be written: is the disk full?")
    path.unlink()
    files.take([record()])
    files.close()
    assert (files.lost, files.trouble) == (3, "")
    assert len(rows(path)) == 1


def test_of_a_full_disk_no_half_row_stays(tmp_path: Path) -> None:
    """A file size limit refuses as a full disk does, in the middle of a line."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files = AzureFiles(tmp_path, rotate_bytes=0, rotate_files=1)
    try:
        files.take([record()])
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
        files.take([record(name="b.example")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert files.lost == 1
    files.take([record(name="c.example")])
    files.close()
    assert [row["Fqdn"] for row in rows(tmp_path / APPLICATION)] == ["evil.example", "c.example"]


def test_no_folder_is_made_below_none_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "AZFWDnsQuery.json").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ServiceError, match=r"AZFWDnsQuery\.json cannot be opened: Is a dir"):
        AzureFiles(tmp_path, rotate_bytes=0, rotate_files=1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ServiceError, match="cannot be opened: No such file") as caught:
        AzureFiles(tmp_path / "no" / "where", rotate_bytes=0, rotate_files=1)
    assert "folder must exist" in caught.value.hint

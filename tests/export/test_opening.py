"""What is opened for each target."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressproxy.errors import ServiceError
from egressproxy.export.azure_files import AzureFiles
from egressproxy.export.opening import open_outlet
from egressproxy.export.otlp import OtlpSender
from egressproxy.export.outlet import AzureTarget, OtlpTarget, SyslogTarget, Target
from egressproxy.export.syslog_sender import SyslogSender


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (SyslogTarget("udp", "127.0.0.1", 9), SyslogSender),
        (OtlpTarget("http://127.0.0.1:9/v1/logs"), OtlpSender),
    ],
)
def test_open(target: Target, kind: type) -> None:
    outlet = open_outlet(target, gateway="hub", version="1", rotate_bytes=0, rotate_files=1)
    outlet.close()
    assert isinstance(outlet, kind)
    assert outlet.lost == 0


def test_open_azure(tmp_path: Path) -> None:
    target = AzureTarget(tmp_path / "azure")
    outlet = open_outlet(target, gateway="hub", version="1", rotate_bytes=0, rotate_files=1)
    outlet.close()
    assert isinstance(outlet, AzureFiles)


def test_what_cannot_be_opened_is_said() -> None:
    with pytest.raises(ServiceError):
        open_outlet(
            AzureTarget(Path("/proc/none")),
            gateway="h",
            version="1",
            rotate_bytes=0,
            rotate_files=1,
        )

"""Opening an outlet: only the code of what is asked for is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from egressproxy.export.outlet import AzureTarget, OtlpTarget, SyslogTarget

if TYPE_CHECKING:
    from egressproxy.export.outlet import Outlet, Target


def open_outlet(
    target: Target, *, gateway: str, version: str, rotate_bytes: int, rotate_files: int
) -> Outlet:
    """Begin to export to a place.

    Args:
        target: the place.
        gateway: what this gateway is called there.
        version: of this software.
        rotate_bytes: size at which a file is renamed; 0 never.
        rotate_files: renamed files kept.

    Raises:
        ServiceError: a file cannot be opened, or what it needs is not installed.
    """
    match target:
        case AzureTarget(folder):
            from egressproxy.export.azure_files import AzureFiles

            return AzureFiles(folder, rotate_bytes=rotate_bytes, rotate_files=rotate_files)
        case SyslogTarget():
            from egressproxy.export.syslog_sender import SyslogSender

            return SyslogSender(target, gateway, version)
        case OtlpTarget():
            from egressproxy.export.otlp import OtlpSender

            return OtlpSender(target, gateway, version)
        case _:
            assert_never(target)

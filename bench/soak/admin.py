"""The service's admin pages over a Unix socket, as a scraper and an operator ask for them."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

HEADERS: Final = {"Connection": "close", "X-Egressproxy": "yes"}
_LIMIT_S: Final = 60.0


class Admin:
    """Asks one page at a time, each on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, page: str) -> str:
        """The text of a page.

        Raises:
            RuntimeError: anything but 200.
        """
        status, text = self._ask("GET", page)
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"{page}: {status} {text[:200]}")
        return text

    def reload(self) -> dict[str, Any]:
        """Reload and return the report: ``outcome``, ``revoked``, ``stall_ms`` and more.

        Raises:
            RuntimeError: the service is starting or ending.
        """
        status, text = self._ask("POST", "/reload")
        report: dict[str, Any] = json.loads(text)
        if "outcome" not in report:
            raise RuntimeError(f"/reload: {status} {text[:200]}")
        return report

    def _ask(self, method: str, page: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost", timeout=_LIMIT_S)
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_LIMIT_S)
            link.connect(str(self._path))
            connection.sock = link
            connection.request(method, page, headers=HEADERS)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

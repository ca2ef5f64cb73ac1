"""Answers what mitmproxy reads in a ClientHello; runs in an environment of its own, over a pipe.

One hexadecimal ClientHello a line in; one JSON object a line out: ``{"sni": …, "alpn": […]}``,
``{"more": true}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import sys

from mitmproxy.proxy.layers.tls import parse_client_hello


def answer(data: bytes) -> dict[str, object]:
    try:
        hello = parse_client_hello(data)
    except ValueError as error:
        return {"error": str(error)}
    if hello is None:
        return {"more": True}
    return {"sni": hello.sni, "alpn": [each.decode("latin-1") for each in hello.alpn_protocols]}


for line in sys.stdin:
    print(json.dumps(answer(bytes.fromhex(line))), flush=True)  # noqa: T201 - its whole purpose

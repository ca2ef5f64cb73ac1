"""The container registry as ACR shows itself: a REST endpoint that redirects blobs elsewhere.

Debian's docker-registry holds the image; what stands here is ACR's behaviour in front of it: a
token for anonymous pulls, and 307 from the registry's name to its dedicated data endpoint
("Configure rules to access an Azure container registry behind a firewall", section "About registry
endpoints").
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientSession, web

from lab import sites
from lab.web import connection_of

if TYPE_CHECKING:
    from pathlib import Path

    from lab.web import Handler

BACKEND: Final = "127.0.0.1:5000"
"""Where docker-registry listens, inside the internet namespace."""
IMAGE: Final = "lab/hello:1"
LAYER_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 16
_HOP: Final = frozenset({"connection", "transfer-encoding", "host", "authorization", "keep-alive"})
_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


def configuration(storage: Path) -> str:
    """docker-registry's configuration file."""
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(storage)}},
            "http": {"addr": BACKEND, "secret": "lab"},
        }
    )


def write_image(directory: Path) -> None:
    """An OCI image layout with one layer of random bytes (image-layout.md of the OCI spec)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        info = tarfile.TarInfo("hello.bin")
        info.size = LAYER_BYTES
        archive.addfile(info, io.BytesIO(os.urandom(LAYER_BYTES)))
    layer_blob = _blob(directory, layer.getvalue(), _TAR)
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(directory, json.dumps(config).encode(), _CONFIG),
        "layers": [layer_blob],
    }
    entry = _blob(directory, json.dumps(manifest).encode(), _MANIFEST)
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def front(session: ClientSession) -> Handler:
    """ACR's two endpoints in front of ``BACKEND``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if connection_of(request).site == sites.REGISTRY_BLOBS.key:
            repository, _, digest = request.path.lstrip("/").rpartition("/")
            return await _forward(session, request, f"/v2/{repository}/blobs/{digest}")
        if request.path == "/oauth2/token":
            return web.json_response({"access_token": "lab", "expires_in": 300})
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _challenge()
        repository, found, digest = request.path.removeprefix("/v2/").rpartition("/blobs/")
        if found and request.method == "GET":
            location = f"https://{sites.REGISTRY_DATA}/{repository}/{digest}?se=later&sig=lab"
            return web.Response(status=307, headers={"Location": location})
        return await _forward(session, request, request.path)

    return handle


def _challenge() -> web.Response:
    realm = f"https://{sites.REGISTRY}/oauth2/token"
    value = f'Bearer realm="{realm}",service="{sites.REGISTRY}"'
    return web.Response(status=401, headers={"WWW-Authenticate": value})


async def _forward(session: ClientSession, request: web.Request, path: str) -> web.StreamResponse:
    # Pairs, not a dict: clients send one Accept for each media type they read.
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
    url = f"http://{BACKEND}{path}"
    async with session.request(request.method, url, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
            await response.write(chunk)
        return response


def _blob(directory: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    folder = directory / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

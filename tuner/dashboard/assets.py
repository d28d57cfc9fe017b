"""Scripts and styles, read and compressed once, at addresses that contain a hash of their content.

    /assets/3f1c0a9d2b7e5c41/page.js

The hash in the path covers all files. Scripts import each other by relative paths
(`./charts.js`), so their addresses contain it, too, and a browser never requests a file twice.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tuner.dashboard.paths import below

FOLDER = Path(__file__).resolve().parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MARKED = re.compile(r"(?:([0-9a-f]{16})/)?(.+)")
WORKER = "stream.js"
"""The script of the shared worker, which no page includes."""


@dataclass(frozen=True)
class Asset:
    """One file."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str
    """Its entity tag; weak, because both encodings share it."""


@cache
def assets() -> Mapping[str, Asset]:
    """Return the served files, by their path in the folder."""
    found = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            media_type = TYPES.get(file.suffix, "text/plain")
            compressed = gzip.compress(content, mtime=0)
            tag = f'W/"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'
            found[file.relative_to(FOLDER).as_posix()] = Asset(content, compressed, media_type, tag)
    return found


@cache
def assets_mark() -> str:
    """Return a short hash of all files."""
    total = hashlib.blake2b(digest_size=8)
    for name, one in assets().items():
        total.update(f"{name} {len(one.content)}\n".encode() + one.content)
    return total.hexdigest()


def asset(name: str) -> str:
    """Return the path of a file, which browsers may cache for ever."""
    return below(f"/assets/{assets_mark()}/{name}")


@cache
def modules() -> tuple[str, ...]:
    """Return the scripts that pages preload, to avoid fetching imports one after the other."""
    return tuple(
        name for name in assets() if name.endswith(".js") and "/" not in name and name != WORKER
    )


async def serve_asset(request: Request) -> Response:
    """Send a file."""
    marked = MARKED.fullmatch(request.path_params["name"])
    # Looked up among the known files, so no path leads out of the folder.
    one = assets().get(marked[2]) if marked else None
    if marked is None or one is None:
        raise HTTPException(404)
    # A page of an earlier version may still use the old hash.
    current = marked[1] == assets_mark()
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
        "Vary": "Accept-Encoding",
        "ETag": one.tag,
    }
    # A proxy may have made the tag strong.
    if one.tag.removeprefix("W/") in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(one.compressed, headers=headers, media_type=one.media_type)
    return Response(one.content, headers=headers, media_type=one.media_type)

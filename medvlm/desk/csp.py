"""Which code and which places a browser may use for the page: only the desk itself."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from pathlib import Path

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def content_security_policy() -> str:
    """The policy: the desk's own files, and the few inline scripts of Streamlit's page by hash.

    Streamlit's styles are made while the page runs, and a component's script may come as a blob.
    """
    hashes = " ".join(f"'sha256-{one}'" for one in _inline_scripts())
    rules = {
        "default-src": "'self'",
        "script-src": f"'self' blob: 'wasm-unsafe-eval' {hashes}".strip(),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "media-src": "'self' blob:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "frame-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _inline_scripts() -> list[str]:
    """Of the page that the installed Streamlit serves. Found without importing it."""
    spec = importlib.util.find_spec("streamlit")
    if spec is None or spec.origin is None:
        return []
    try:
        page = (Path(spec.origin).parent / "static" / "index.html").read_text(encoding="utf-8")
    except OSError:
        return []
    digests = (hashlib.sha256(one.encode()).digest() for one in _INLINE.findall(page))
    return [base64.b64encode(digest).decode() for digest in digests]

"""Makes viewer.js from its sources: `python app/viewer/build.py` (needs node's npx).

The bundle's first line holds the sources' SHA-256, so that a test tells when it is out of date.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

ESBUILD = "esbuild@0.28.2"
HERE = Path(__file__).resolve().parent
BUNDLE = HERE / "viewer.js"


def digest() -> str:
    """Of the sources, by name and content."""
    whole = hashlib.sha256()
    for path in sorted((HERE / "src").glob("*.js")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "viewer.js"
        subprocess.run(
            [
                *("npx", "--yes", ESBUILD, str(HERE / "src" / "viewer.js"), f"--outfile={made}"),
                *("--bundle", "--format=esm", "--minify", "--charset=utf8", "--target=es2022"),
                "--log-level=warning",
            ],
            check=True,
            cwd=folder,
        )
        text = made.read_text(encoding="utf-8")
    BUNDLE.write_text(f"// Made by build.py from src/, sha256 {digest()}\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()

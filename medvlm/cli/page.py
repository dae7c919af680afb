"""`medvlm app`: the reviewer's web page."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Annotated

import typer

from medvlm.errors import UsageError
from medvlm.resources import resource_dir


def page(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen.")] = "localhost",
) -> None:
    """Opens the web page on this machine."""
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError("the page needs streamlit", remedy="pip install 'medvlm[app]'")
    command = [sys.executable, "-m", "streamlit", "run", str(resource_dir("app") / "main.py")]
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    raise typer.Exit(subprocess.run(command, check=False).returncode)

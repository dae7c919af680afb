"""`medvlm app`: the reviewer's web page."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Annotated

import typer

from medvlm.cli.common import CheckpointName, LlmPath, PolicyFile
from medvlm.config.policy import POLICY, site_policy
from medvlm.errors import UsageError
from medvlm.resources import resource_dir


def page(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen.")] = "localhost",
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
) -> None:
    """Opens the web page on this machine."""
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError("the page needs streamlit", remedy="pip install 'medvlm[app]'")
    environment = dict(os.environ)
    if checkpoint is not None:
        from medvlm.model.checkpoint import resolve_checkpoint

        environment["MEDVLM_CHECKPOINT"] = str(resolve_checkpoint(checkpoint).resolve())
    if llm_path is not None:
        from medvlm.model.llm_source import LLM_PATH

        environment[LLM_PATH] = str(llm_path.resolve())
    if policy is not None:
        site_policy(policy)  # a mistake is told here, not in the page
        environment[POLICY] = str(policy.resolve())
    command = [sys.executable, "-m", "streamlit", "run", str(resource_dir("app") / "main.py")]
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)

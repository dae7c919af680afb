"""`medvlm app`: the reviewer's web page."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.common import CheckpointName, LlmPath, PolicyFile, err
from medvlm.config.desk import CONFIG, DATABASE, DRAFTING, FILES, WATCH, DeskConfig, desk_config
from medvlm.config.policy import POLICY, site_policy
from medvlm.errors import UsageError
from medvlm.resources import resource_dir


def page(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen.")] = "localhost",
    config: Annotated[
        Path | None,
        typer.Option(help="The desk's settings, a YAML file; else MEDVLM_DESK_CONFIG."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="sqlite:///FILE or postgresql://...; else MEDVLM_DATABASE."),
    ] = None,
    files: Annotated[Path | None, typer.Option(help="The folder of the studies' files.")] = None,
    watch: Annotated[
        list[Path] | None, typer.Option(help="A folder that studies arrive in; may be repeated.")
    ] = None,
    drafting: Annotated[
        bool, typer.Option("--drafting/--no-drafting", help="Whether drafts are made here.")
    ] = True,
    allow_anonymous: Annotated[
        bool,
        typer.Option(
            "--allow-anonymous", help="Serve other machines without a log-in. Anybody may sign."
        ),
    ] = False,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
) -> None:
    """Opens the reviewers' web page: worklist, viewer, drafts, signature, export."""
    for needed in ("streamlit", "sqlalchemy", "alembic"):
        if importlib.util.find_spec(needed) is None:
            raise UsageError(f"the page needs {needed}", remedy="pip install 'medvlm[app]'")
    given = {CONFIG: config, FILES: files}
    os.environ.update({name: str(path.resolve()) for name, path in given.items() if path})
    if database:
        os.environ[DATABASE] = database
    if watch:
        os.environ[WATCH] = os.pathsep.join(str(folder.resolve()) for folder in watch)
    if not drafting:
        os.environ[DRAFTING] = "false"
    settings = desk_config()  # a mistake is told here, not in the page
    if checkpoint is not None:
        from medvlm.model.checkpoint import resolve_checkpoint

        os.environ["MEDVLM_CHECKPOINT"] = str(resolve_checkpoint(checkpoint).resolve())
    if llm_path is not None:
        os.environ["MEDVLM_LLM_PATH"] = str(llm_path.resolve())
    if policy is not None:
        site_policy(policy)
        os.environ[POLICY] = str(policy.resolve())
    _refuse_open_door(address, settings, allow_anonymous)
    err.print(f"The page: http://{address}:{port}  (Ctrl-C ends it)", markup=False)
    _run(_command(port, address, settings))


def _refuse_open_door(address: str, settings: DeskConfig, allow_anonymous: bool) -> None:
    """Without a log-in, whoever reaches the page is its reviewer."""
    if _is_loopback(address) or settings.oidc is not None:
        return
    if not allow_anonymous:
        raise UsageError(
            f"at {address} other machines reach the page, and no log-in is set up",
            remedy="set up `oidc` in the desk's settings, or say --allow-anonymous",
        )
    err.print("warning: everybody who reaches this machine can read, change and sign", markup=False)


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def _command(port: int, address: str, settings: DeskConfig) -> list[str]:
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "server.maxUploadSize": settings.upload_mb,
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        "server.enableStaticServing": "false",
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "global.developmentMode": "false",
        "logger.hideWelcomeMessage": "true",
        "logger.enableRich": "false",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(resource_dir("app") / "server.py")]
    return command + [f"--{name}={value}" for name, value in options.items()]


def _run(command: list[str]) -> None:
    """Becomes the server, so that whoever ends this process ends it."""
    if os.name == "posix":
        sys.stderr.flush()
        os.execv(command[0], command)
    raise typer.Exit(subprocess.run(command, check=False).returncode)

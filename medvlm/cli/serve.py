"""`medvlm serve`: studies, drafts and questions over HTTP, for other programs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm.cli.common import CheckpointName, LlmPath, PolicyFile, err, load_with_notice
from medvlm.config.policy import PolicyConfig, site_policy
from medvlm.config.serve import ServeConfig, is_loopback
from medvlm.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from medvlm.serve.metrics import Metrics
    from medvlm.serve.reader import Reader

serve = typer.Typer(invoke_without_command=True, help="Studies, drafts and questions over HTTP.")

TokensFile = Annotated[
    Path | None, typer.Option(help="A file of tokens' names and sha256; or MEDVLM_SERVE_TOKENS.")
]
NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


@serve.callback()
def run(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Where to listen; else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Else 8600.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="The folder of the studies; else in the user's data.")
    ] = None,
    tokens: TokensFile = None,
    queue: Annotated[
        int | None, typer.Option(min=1, help="Questions in hand at once, drafts waiting; else 64.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The service's settings, a YAML file (configs/serve.yaml).")
    ] = None,
    checkpoint: CheckpointName = None,
    llm_path: LlmPath = None,
    policy: PolicyFile = None,
) -> None:
    """Serves studies, drafts and questions over HTTP, for other programs (docs/service.md).

    Without tokens only this machine is served.
    """
    if context.invoked_subcommand is not None:
        return
    for needed in NEEDED:
        if importlib.util.find_spec(needed) is None:
            raise MissingExtra(f"the service needs {needed}", remedy="pip install 'medvlm[serve]'")
    given = {"host": host, "port": port, "store": store, "tokens": tokens, "queue": queue}
    settings = ServeConfig.from_yaml(config) if config is not None else ServeConfig()
    settings = settings.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    _serve(settings, checkpoint, llm_path, site_policy(policy))


@serve.command()
def token(
    name: Annotated[str, typer.Argument(help="Whom the token is for.")],
    tokens: Annotated[Path, typer.Option(help="The file that its sha256 is added to.")],
) -> None:
    """Makes a token and prints it, once; the file keeps its sha256. Restart the service then."""
    from medvlm.serve.tokens import add_token

    typer.echo(add_token(tokens, name))


def _serve(
    settings: ServeConfig, checkpoint: str | None, llm_path: Path | None, policy: PolicyConfig
) -> None:
    from medvlm.model.checkpoint import resolve_checkpoint
    from medvlm.model.registry import home_dir
    from medvlm.serve.run import Server
    from medvlm.serve.run import serve as run_server
    from medvlm.serve.store import Store
    from medvlm.serve.tokens import read_tokens

    resolve_checkpoint(checkpoint)  # a wrong name is told at once

    def load(metrics: Metrics) -> Reader:
        from medvlm.serve.reader import CheckpointReader

        loaded = load_with_notice(checkpoint, llm_path, policy)
        return CheckpointReader(loaded, metrics, settings.seen_mb << 20)

    known = read_tokens(settings.tokens)
    if not known and not is_loopback(settings.host):
        raise UsageError(
            f"at {settings.host} other machines reach the service, and there are no tokens",
            remedy="make one with `medvlm serve token NAME --tokens FILE`",
        )
    server = Server(settings, Store(settings.store or home_dir() / "serve"), known, load)
    err.print(
        f"The service: http://{settings.host}:{settings.port}  (Ctrl-C ends it)", markup=False
    )
    if not known:
        err.print("notice: no tokens, so everybody on this machine may use it", markup=False)
    run_server(server)

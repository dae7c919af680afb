"""The command line: `medvlm COMMAND`.

Exit 0: every input ended in a result or in a refusal by policy; 1: some input failed; 2: wrong
usage. Results go to files, a short summary to the terminal; with `--json` stdout holds JSON only.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from medvlm.cli.ask import ask
from medvlm.cli.audit import audit
from medvlm.cli.common import report_error
from medvlm.cli.compare import compare
from medvlm.cli.deidentify import deidentify
from medvlm.cli.draft import demo, draft
from medvlm.cli.evaluate import evaluate
from medvlm.cli.finetune import finetune
from medvlm.cli.inspect import inspect
from medvlm.cli.model import model
from medvlm.cli.page import page
from medvlm.cli.serve import serve
from medvlm.cli.train import pretrain, release, train
from medvlm.errors import MedVLMError, MissingExtra, UsageError

OF_THE_MODEL = frozenset({"torch", "torchvision", "timm", "transformers", "peft", "safetensors"})

application = typer.Typer(
    name="medvlm",
    help="Located, checkable draft reports from medical images. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(inspect, draft, ask, deidentify, evaluate),
    *(pretrain, train, release, compare, finetune, demo),
):
    application.command()(command)
application.command("app")(page)
application.add_typer(model, name="model")
application.add_typer(audit, name="audit")
application.add_typer(serve, name="serve")


def main() -> None:
    """Runs a command; an error made on purpose ends in its own words, not in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name of a file may not fit the terminal's letters
            stream.reconfigure(errors="backslashreplace")
    try:
        application()
    except MedVLMError as error:
        report_error(error)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_MODEL:
            raise
        extra = MissingExtra(
            f"this needs a model, and {error.name} is not installed",
            remedy="pip install 'medvlm[model]'",
        )
        report_error(extra)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

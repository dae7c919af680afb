"""Sessions of ONNX Runtime on the CPU, with as many threads as PyTorch has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import torch

from medvlm.errors import CheckpointError


def open_session(path: Path, *, arena: bool = False) -> Any:
    """`arena`: keeps its memory for the next run, for inputs of few sizes.

    Raises CheckpointError if the file cannot be opened.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own have no common root
        raise CheckpointError(
            "is no model that ONNX Runtime can open",
            file=str(path),
            remedy="remove its folder; it is built anew",
        ) from error

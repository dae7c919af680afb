"""Decodes with llama.cpp in a process of its own, for `benchmarks.llama`.

    python llama_child.py MODEL.gguf BATCH THREADS ROOM

`ROOM`: tokens of a sequence. Needs nothing but the package xllamacpp, so that another interpreter
can run it. First writes what the library was compiled for. Then reads lines of JSON,
`{"prompts": [[id, ...], ...], "tokens": n}`, and answers each with `{"rate": ...}`: the tokens per
second of decoding as llama.cpp itself times them, summed over the answers, which it writes at once.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp


def main() -> None:
    model, batch, threads, room = sys.argv[1], *map(int, sys.argv[2:])
    # Whatever the library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel = batch
    params.n_ctx = params.n_batch = batch * room  # all prompts are read before any answer begins
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    server = xllamacpp.Server(params)

    def complete(prompt: list[int], tokens: int) -> dict[str, Any]:
        result: dict[str, Any] = server.handle_completions(
            {
                "prompt": prompt,
                "max_tokens": tokens,
                "ignore_eos": True,
                "temperature": 0,
                "cache_prompt": False,
            }
        )
        if result["usage"]["completion_tokens"] != tokens:
            raise RuntimeError(f"asked for {tokens} tokens, got {result['usage']}")
        return result

    print(json.dumps({"compiled_for": xllamacpp.get_system_info()}), file=answers, flush=True)
    with ThreadPoolExecutor(batch) as pool:
        for line in sys.stdin:
            wanted = json.loads(line)
            prompts, tokens = wanted["prompts"], wanted["tokens"]
            done = list(pool.map(complete, prompts, [tokens] * len(prompts)))
            rate = sum(result["timings"]["predicted_per_second"] for result in done)
            print(json.dumps({"rate": rate}), file=answers, flush=True)


if __name__ == "__main__":
    main()

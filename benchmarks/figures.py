"""The tables and pictures of measured quality, from the files that `medvlm evaluate` wrote.

python benchmarks/figures.py runs/evaluation/*.json [--out DIR]

Without `--out`, prints the table that README shows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medvlm.evaluate.figures import table, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--out", type=Path, help="Folder for figures.md and the pictures.")
    arguments = parser.parse_args()
    evaluations = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.evaluations]
    if arguments.out is None:
        print(table(evaluations))
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        print(f"written to {write_report(evaluations, arguments.out)}")


if __name__ == "__main__":
    main()

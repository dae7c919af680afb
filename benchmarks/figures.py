"""The README's table of measured quality, from the files that `medvlm evaluate` wrote.

python benchmarks/figures.py runs/evaluation/*.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# (part, figure, what it is called in the table)
ROWS = (
    ("classification", "macro_auroc", "findings, macro AUROC (at least 10 positives each)"),
    ("classification", "macro_auroc_all", "findings, macro AUROC (all)"),
    ("report", "f1", "draft text, F1 of stated findings"),
    ("report", "tokens_only_f1", "language model from visual tokens alone, F1"),
    ("report", "prevalence_f1", "- always naming the commonest findings, F1"),
    ("report", "shuffled_f1", "- with another patient's tokens, F1"),
    ("report", "text_contradicts_classifier", "sentences that contradict the classifier"),
    ("grounding", "pointing_game", "opacity boxes, pointing game"),
    ("grounding", "mean_best_iou", "opacity boxes, mean best IoU"),
    ("grounding", "map50", "opacity boxes, mAP at IoU 0.5"),
    ("grounding", "boxes_on_negated", "boxes on negated findings"),
    ("calibration", "ece", "calibration error (ECE)"),
    ("calibration", "brier_skill", "Brier skill against the prevalence"),
    ("anatomy", "mean_box_iou", '"where is the left lung?", mean box IoU'),
    ("anatomy", "mean_dice", "lung masks, mean Dice"),
    ("anatomy", "left_right_swapped", "lungs with sides swapped"),
    ("vqa", "closed_accuracy", "closed questions, accuracy"),
    ("vqa", "swapped_closed_accuracy", "- over another image of the same organ"),
    ("vqa", "gain", "- gain over that, paired"),
    ("vqa", "open_accuracy", "open questions, exact"),
    ("vqa", "open_token_f1", "open questions, token F1"),
)


def table(evaluations: list[dict[str, Any]]) -> str:
    """Markdown: set, what was measured, value with its 95 % interval."""
    lines = ["| set | measured | value | 95 % interval |", "|---|---|---|---|"]
    for scores in evaluations:
        name = scores["data"]["name"]
        for part, figure, words in ROWS:
            value = scores.get(part, {}).get(figure)
            if value is None:
                continue
            interval = scores[part].get(f"{figure}_ci")
            said = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            number = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append(f"| {name} | {words} | {number} | {said} |")
            fixed = scores[part].get("constant_baseline", {}).get(figure)
            if part == "grounding" and fixed is not None:
                lines.append(f"| {name} | - the best fixed boxes | {fixed:.3f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(table([json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]]))

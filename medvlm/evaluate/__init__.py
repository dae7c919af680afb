"""Measures of a checkpoint's quality, each with a 95 % bootstrap interval by patient."""

DEFAULT_PARTS = ("classification", "vqa", "grounding", "anatomy", "calibration", "report")
"""What is scored unless parts are named."""

PARTS = (*DEFAULT_PARTS, "image_use")
"""All parts of an evaluation."""

REPORTS = "reports.jsonl"
"""People's reports of a set's images, in its folder."""

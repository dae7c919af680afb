"""Radiology reports of a hospital: read, split, labelled by rules, redacted. Imports no torch."""

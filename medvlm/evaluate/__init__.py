"""Measures of a checkpoint's quality, each with a 95 % bootstrap interval by patient."""

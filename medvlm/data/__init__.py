"""Data sets for training and evaluation, their cards, and the patient-level split."""

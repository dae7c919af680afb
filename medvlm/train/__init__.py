"""Training: encoder pretraining, alignment in two stages, release of a checkpoint."""

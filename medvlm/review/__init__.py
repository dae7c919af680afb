"""The reviewers' desk: worklist, reviews, signatures and their record. No tensors, no page."""

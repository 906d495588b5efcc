"""Evaluation of frozen representations: folds, heads, probe, report."""

"""Evaluation of frozen representations: tasks, folds, heads, probe, report."""

"""Grids of pre-trainings, each scored by the probe: above pre-training and probing."""

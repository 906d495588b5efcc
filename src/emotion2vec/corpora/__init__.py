"""Labelled speech: what is known of each corpus, and how it is read as its owners distribute it."""

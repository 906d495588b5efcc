"""Fine-tuning a speech encoder on labelled recordings."""

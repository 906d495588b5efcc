"""Published checkpoints: found by name, read without running them, converted into our folders."""

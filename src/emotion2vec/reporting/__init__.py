"""Results of the benchmark as documents: Markdown, CSV, LaTeX, one HTML page."""

"""The benchmark: cells of backbones, corpora and protocols; conditions; from corpus to corpus."""

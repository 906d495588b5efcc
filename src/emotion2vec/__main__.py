"""`python -m emotion2vec`, for launchers such as torchrun."""

from emotion2vec.cli import main

main()

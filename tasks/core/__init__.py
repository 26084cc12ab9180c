"""Pure domain code: no Prefect, no printing, and environment variables in `settings` alone (render.kernels sets one).

Imports go one way: tests/test_architecture.py has the table of layers and enforces it.
"""

"""Pure domain code: no Prefect, no environment variables outside `settings`, no printing.

Imports go one way: tests/test_architecture.py has the table of layers and enforces it.
"""

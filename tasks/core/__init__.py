"""Pure domain code: no Prefect, no printing, no environment variables but those that a library reads when it is loaded.

Imports go one way: tests/test_architecture.py has the table of layers and enforces it.
"""

"""Production validation: runs a small capture through the production path and checks the result."""

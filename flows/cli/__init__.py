"""The command line: `spaceport …`, or `python -m flows.cli …`."""

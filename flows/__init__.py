"""The flows and the command line: the stages in order, and where each runs. Start reading in `reconstruct.py`."""

"""What runs, in what order, where. Start reading in `reconstruct.py`."""

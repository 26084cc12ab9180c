"""The photos stage: turn a folder or an archive of files into a validated photo set."""

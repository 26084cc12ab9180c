"""A folder or an archive of files becomes a validated photo set."""

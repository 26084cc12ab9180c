"""Reports for people: progress, logs, artifacts, the page of a run, pictures and metrics."""

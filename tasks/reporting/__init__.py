"""What people see of a run: progress, logs, artifacts, the run's page, pictures and metrics."""

"""Places of photos, stage outputs and results: local folders and S3."""

"""Places of photos, outputs and results: folders, and S3."""

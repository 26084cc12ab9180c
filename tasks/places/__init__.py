"""Where photos come from, outputs are kept and results go: folders, and S3."""

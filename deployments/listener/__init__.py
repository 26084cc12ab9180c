"""The S3 listener: starts a run for each complete upload, and writes a file next to the upload when the run ends.

python -m deployments.listener
"""

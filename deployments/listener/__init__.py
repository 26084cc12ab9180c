"""The S3 listener: uploads that are complete become runs, and the ends of those runs become files beside the uploads.

python -m deployments.listener
"""

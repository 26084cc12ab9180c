"""Services that run in an AWS account, and queries of an account for commands."""

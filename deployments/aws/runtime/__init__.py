"""Services of an AWS account, and what commands ask an account for."""

"""What runs in an AWS account beside the runs, and what commands ask an account for."""

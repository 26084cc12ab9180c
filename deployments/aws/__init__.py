"""An AWS account as code: CDK stacks, which `app.py` puts together, and `runtime`, which runs there."""

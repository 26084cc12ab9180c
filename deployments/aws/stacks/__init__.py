"""CDK stacks of an AWS account, which `app.py` puts together."""

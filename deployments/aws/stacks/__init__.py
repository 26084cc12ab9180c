"""CDK stacks of an AWS account; `app.py` assembles them."""

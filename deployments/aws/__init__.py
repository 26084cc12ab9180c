"""The AWS account as code: CDK stacks, which `app.py` puts together. Nothing here runs when photos are computed."""

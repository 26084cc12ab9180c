"""An AWS account as code: the CDK stacks in `stacks`, and the services that run in the account in `runtime`."""

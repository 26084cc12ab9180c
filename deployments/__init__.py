"""Deployment of the flows: work pools, deployments, blocks, automations, and the local server that runs them."""

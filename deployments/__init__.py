"""How the flows are deployed: work pools, deployments, blocks, automations, and the local server that runs them."""

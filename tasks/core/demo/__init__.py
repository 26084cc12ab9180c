"""A generated place and a simulated drone flight over it."""

"""Estimates of a run's time and memory, from headers, options and a machine. Nothing is decoded or trained."""

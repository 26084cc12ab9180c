"""Pure domain code: no Prefect, no environment variables outside `settings`, no printing.

Imports go one way (tests/test_architecture.py enforces it):
stage packages -> render -> scene, gaussians, ply, photoset, measurements, progress, option_model -> transforms, errors.
"""

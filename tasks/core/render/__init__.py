"""Gaussians and a camera become an image, and an image's gradient becomes the Gaussians' gradient."""

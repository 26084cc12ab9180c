"""Rasterizers: from Gaussians and a camera to an image, and from an image's gradient to the Gaussians'."""

"""Rasterizers: draw an image of Gaussians, and turn an image's gradient into the Gaussians' gradient."""

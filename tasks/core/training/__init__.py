"""Training: fit Gaussians to the photos."""

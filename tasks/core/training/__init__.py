"""Gaussians that look like the photos from every side."""

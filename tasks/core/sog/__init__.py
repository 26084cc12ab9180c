"""Compression: Gaussians into the PlayCanvas SOG format, version 2, and back."""

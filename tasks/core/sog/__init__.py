"""The PlayCanvas SOG format: writer and reader."""

"""The web page that shows a splat."""

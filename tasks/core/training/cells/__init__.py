"""Training in cells: a capture is divided, its parts are trained by themselves and joined into one splat."""

"""Training in cells: a scene is divided, each cell is trained by itself, and the results become one splat."""

"""One flow for each stage and each part of one, so that it can run in a work pool of its own.

Each has the parameters of its task.

`tasks/running/dispatch.py` starts their deployments, which have the same names, and passes a task's parameters by name.
A stage uses the settings of the machine where it runs.
"""

from tasks.cells import plan_cells, train_cell
from tasks.compress import compress_gaussians
from tasks.photos import ingest_photos
from tasks.publish import publish_splat
from tasks.sfm import find_cameras
from tasks.train import train_gaussians

photos_flow = ingest_photos.as_flow()
sfm_flow = find_cameras.as_flow()
train_flow = train_gaussians.as_flow()
cells_flow = plan_cells.as_flow()
cell_flow = train_cell.as_flow()
compress_flow = compress_gaussians.as_flow()
publish_flow = publish_splat.as_flow()

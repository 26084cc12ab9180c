"""One optimiser step, whatever computes it."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.scene import Camera
from tasks.core.training.depth import DepthTargets
from tasks.core.training.population import Population
from tasks.core.training.schedule import StepSettings

SAMPLED_EVERY = 8


class StepResult(NamedTuple):
    """What a step found out before it moved the parameters."""

    loss: float
    sample: NDArray[
        np.float32
    ]  # every SAMPLED_EVERY-th pixel of the render in either direction, before the gain [h, w, 3]


class Engine(Protocol):
    """Renders, compares, and moves the parameters. A step is one call, so that an engine may fuse its parts."""

    @property
    def name(self) -> str:
        """The backend's name, "cpu" or "cuda"."""

    @property
    def device(self) -> str:
        """The torch device on which the population has to live."""

    @property
    def max_gaussians(self) -> int | None:
        """How many Gaussians the device's memory was found to suffice for; None where nobody asked."""

    @property
    def decisions(self) -> tuple[str, ...]:
        """What was chosen because of this machine, a sentence each, so far."""

    @property
    def degradations(self) -> tuple[str, ...]:
        """What will be worse than was asked for, a sentence each, so far."""

    def step(
        self,
        population: Population,
        camera: Camera,
        photo: NDArray[np.uint8],
        gain: NDArray[np.float32],
        settings: StepSettings,
        depth: DepthTargets | None = None,
    ) -> StepResult:
        """Update the Gaussians that the camera sees so that `gain` times the render comes closer to the photo.

        Where asking for every loss would make the device wait, the loss returned is the mean of a few steps, not long
        ago. One that is not finite shows within these steps. It is that of the photo, whatever depths say.

        Adds to the population's `updates`, `scores` and `seen`.

        Args:
            population: the Gaussians.
            camera: of the photo's size.
            photo: uint8 [H, W, 3].
            gain: exposure of this photo by channel [3]; see `Exposures`.
            settings: of this moment of the schedule.
            depth: where the photo's surface is to be, if this step asks for it; Gaussians that the photo does not show
                stay as they are.
        """

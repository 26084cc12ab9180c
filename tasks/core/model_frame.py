"""The frame of a user's own model: `model_frame.json`, in the scene's folder and next to the published splat.

A scene of a given model is centred, turned upright and scaled, so that its coordinates are small numbers. This file
contains the way back to the model's own coordinates, which may be metres of a national grid with seven digits.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.core.transforms import Float64

MODEL_FRAME_FILE = "model_frame.json"

Row = tuple[float, float, float, float]


class ModelFrame(BaseModel):
    """The similarity between a scene and the model that it was made of, in double precision.

    A point of the splat `x` is at `scale * rotation @ x + translation` in the model.
    """

    model_config = ConfigDict(frozen=True)

    model: str  # path of the model's files below the folder that was given
    scale: float  # units of the model in one unit of the scene
    rotation: tuple[tuple[float, float, float], ...]  # [3, 3]
    translation: tuple[float, float, float]  # in units of the model
    model_from_scene: tuple[Row, ...]  # [4, 4], of the three above
    scene_from_model: tuple[Row, ...]  # [4, 4], the inverse; loses digits where the translation is large

    @classmethod
    def of(cls, model: str, scene_from_model: Float64) -> "ModelFrame":
        """The frame of a model that was moved by a similarity [3, 4]."""
        turned = scene_from_model[:, :3]
        scale = float(np.cbrt(np.linalg.det(turned)))
        rotation = (turned / scale).T
        translation = -(rotation @ scene_from_model[:, 3]) / scale
        back = np.column_stack([rotation / scale, translation])
        return cls(
            model=model,
            scale=1 / scale,
            rotation=tuple((float(a), float(b), float(c)) for a, b, c in rotation),
            translation=(float(translation[0]), float(translation[1]), float(translation[2])),
            model_from_scene=_rows(back),
            scene_from_model=_rows(scene_from_model),
        )

    def save(self, folder: Path) -> None:
        """Write the file into a folder."""
        (folder / MODEL_FRAME_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "ModelFrame | None":
        """Read what `save` wrote; None if the scene was made of photos alone."""
        file = folder / MODEL_FRAME_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def _rows(matrix: Float64) -> tuple[Row, ...]:
    """The rows of a similarity [3, 4], and the last one."""
    rows = [(float(a), float(b), float(c), float(d)) for a, b, c, d in matrix]
    return (*rows, (0.0, 0.0, 0.0, 1.0))

"""The progress of training for people: a growing table, the quality curve, and a held-out photo next to its render."""

from typing import TYPE_CHECKING

from pydantic import JsonValue

from tasks.core.measurements import CurvePoint
from tasks.core.refs import RunContext
from tasks.reporting.artifacts import Shown, show_picture
from tasks.reporting.metrics import GpuTeller
from tasks.reporting.recording import Recording, current_recording

if TYPE_CHECKING:  # torch takes a second and 200 MB, which a run that trains elsewhere saves
    from tasks.core.training.trainer import EvaluatedView, TrainingStats
    from tasks.core.usage import GpuUsage

KEPT_ROWS = 20  # besides the newest: one for every twentieth of training
REFRESH_SECONDS = 2.0  # between two readings of pace and memory; the artifact is updated even less often

Row = dict[str, JsonValue]


class TrainingBoard:
    """Turns training's callbacks into artifacts of the current run; does nothing outside of a run."""

    def __init__(self, context: RunContext, part: str | None = None) -> None:
        """`part` is the name of a part of the training, such as `cell-03`, which then has artifacts of its own."""
        self._context = context
        self._key = "training" if part is None else f"training-{part}"
        self._pictures = "pictures/" if part is None else f"pictures/{part}-"
        self._recording = current_recording()
        self._rows: list[Row] = []  # rows that stay, newest first
        self._shown_rows: list[Row] = []  # the same after the newest row
        self._kept = 0
        self._refreshed_at_seconds = 0.0  # of training
        self._refreshed_at_step = 0
        self._gpu = GpuTeller("train")

    def on_step(self, stats: "TrainingStats") -> None:
        """Refresh the table's newest row now and then, and keep one for each twentieth of training."""
        if self._recording is None:
            return
        reached = int(KEPT_ROWS * stats.share)
        keep = reached > self._kept
        seconds = stats.seconds - self._refreshed_at_seconds
        if not keep and seconds < REFRESH_SECONDS:
            return
        pace = (stats.step - self._refreshed_at_step) / seconds
        self._refreshed_at_seconds, self._refreshed_at_step = stats.seconds, stats.step
        row = self._row(stats, pace)
        self._shown_rows = [row, *self._rows]
        if keep:
            self._kept = reached
            self._rows = self._shown_rows[:KEPT_ROWS]
        self._show_table(self._recording)

    def on_evaluation(self, evaluated: "EvaluatedView") -> None:
        """Redraw the curve and show the current render of the held-out view."""
        if self._recording is None:
            return
        if self._shown_rows:
            self._shown_rows[0] |= quality_of(evaluated.point.psnr_db, evaluated.point.detail)
            self._show_table(self._recording)
        self._recording.show(f"{self._key}-curve", lambda: self._draw_curve(evaluated.curve))
        self._recording.show(f"{self._key}-preview", lambda: self._draw_preview(evaluated))

    def _show_table(self, recording: Recording) -> None:
        rows: list[JsonValue] = [dict(row) for row in self._shown_rows]  # as they are now
        newest = self._shown_rows[0]
        quality = "" if newest["PSNR (dB)"] is None else f", {newest['PSNR (dB)']} dB"
        text = f"Step {newest['step']}{quality}, {newest['ETA (s)']} s to go"
        recording.show(self._key, lambda: Shown("table", rows, text))

    def _draw_curve(self, curve: tuple[CurvePoint, ...]) -> Shown | None:
        from tasks.core.report.charts import quality_curve_picture

        name = f"{self._pictures}curve-{curve[-1].step:07d}.png"
        text = f"Step {curve[-1].step:,}: {curve[-1].psnr_db:.2f} dB on photos that are not trained on"
        return show_picture(name, quality_curve_picture(curve), text, self._context)

    def _draw_preview(self, evaluated: "EvaluatedView") -> Shown | None:
        from tasks.core.report.preview import side_by_side

        name = f"{self._pictures}view-{evaluated.point.step:07d}.jpg"
        text = f"Step {evaluated.point.step:,}: photo and render of {evaluated.name}, which is not trained on"
        return show_picture(name, side_by_side(evaluated.photo, evaluated.image), text, self._context)

    def _row(self, stats: "TrainingStats", steps_per_second: float) -> Row:
        from tasks.core.usage import gpu_usage

        gpu = gpu_usage()
        self._gpu.tell(gpu)
        return row_of(stats, steps_per_second, gpu)


def quality_of(psnr_db: float | None, detail: float | None) -> Row:
    """Return the row of the last evaluation; `detail` is that of the view that is shown next to its photo."""
    return {
        "PSNR (dB)": None if psnr_db is None else round(psnr_db, 2),
        "detail (%)": None if detail is None else round(100 * detail),
    }


def row_of(stats: "TrainingStats", steps_per_second: float, gpu: "GpuUsage | None") -> Row:
    """Return a row of the table."""
    from tasks.core.usage import memory_in_use_bytes

    row: Row = {
        "step": f"{stats.step:,} of {stats.steps:,}",
        "loss": round(stats.loss, 4),
        **quality_of(stats.psnr_db, stats.detail),
        "Gaussians": f"{stats.num_gaussians:,}",
        "steps/s": round(steps_per_second, 1),
        "elapsed (s)": round(stats.seconds),
        "ETA (s)": round(stats.eta_seconds),
        "memory (GB)": round(memory_in_use_bytes() / 1e9, 2),
    }
    if gpu is not None:
        row["GPU memory (GB)"] = round(gpu.allocated_bytes / 1e9, 2)
        row["GPU memory of all (GB)"] = None if gpu.used_bytes is None else round(gpu.used_bytes / 1e9, 2)
        row["GPU (%)"] = gpu.utilisation_percent
        row["GPU (°C)"] = gpu.temperature_celsius
    return row

"""Result of a side-by-side: a row for each contender, and ours against each of the others."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, computed_field

from tasks.core.measurements import CurvePoint

OURS = "ours"
# Bars against stock gsplat at this many steps, and at no others.
BAR_STEPS = 30_000
MOST_TIME, MOST_GAUSSIANS, MOST_GPU_BYTES = 0.33, 0.6, 14e9


class Result(BaseModel):
    """One training. A number that was not measured is None."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # what is computed is written, and read again

    name: str
    steps: int
    round: int = 0  # contenders are compared within a round
    psnr_db: float | None = None  # mean over held-out views
    ssim: float | None = None
    gmsd: float | None = None
    detail: float | None = None
    seconds: float | None = None  # of training alone
    num_gaussians: int | None = None
    peak_gpu_bytes: int | None = None  # by tensors; None on the CPU
    curve: tuple[CurvePoint, ...] = ()
    notes: tuple[str, ...] = ()
    begun: bool = True

    @computed_field
    @property
    def ms_per_step(self) -> float | None:
        """Of training, density control and our final prune included."""
        return None if self.seconds is None else 1000 * self.seconds / self.steps


class Ratios(BaseModel):
    """Ours against another; below 1 is better for ours, and a positive difference of PSNR."""

    against: str
    steps: int  # of ours
    their_steps: int
    psnr_difference_db: float
    time: float
    gaussians: float
    seconds_to_their_psnr: float | None  # of ours, by its curve; None when it never gets there
    time_to_their_psnr: float | None
    meets: dict[str, bool | None]  # the bars, where there are any for so many steps


def compared(results: Sequence[Result]) -> list[Ratios]:
    """Ours against every other that was measured, round by round."""
    rounds = dict.fromkeys(result.round for result in results)
    return [ratios for number in rounds for ratios in _compared([r for r in results if r.round == number])]


def _compared(results: Sequence[Result]) -> list[Ratios]:
    ours = next((result for result in results if result.name == OURS), None)
    if ours is None or ours.psnr_db is None or not ours.seconds or not ours.num_gaussians:
        return []
    ratios = []
    for other in results:
        if other.name == OURS or other.psnr_db is None or not other.seconds or not other.num_gaussians:
            continue
        reached = [point.seconds for point in ours.curve if point.psnr_db >= other.psnr_db]
        time_share, share = ours.seconds / other.seconds, ours.num_gaussians / other.num_gaussians
        ratios.append(
            Ratios(
                against=other.name,
                steps=ours.steps,
                their_steps=other.steps,
                psnr_difference_db=ours.psnr_db - other.psnr_db,
                time=time_share,
                gaussians=share,
                seconds_to_their_psnr=reached[0] if reached else None,
                time_to_their_psnr=reached[0] / other.seconds if reached else None,
                meets=_meets(ours, other, time_share, share) if other.steps == BAR_STEPS else {},
            )
        )
    return ratios


def _meets(ours: Result, other: Result, time_share: float, share: float) -> dict[str, bool | None]:
    assert ours.psnr_db is not None
    assert other.psnr_db is not None
    memory = None if ours.peak_gpu_bytes is None else ours.peak_gpu_bytes <= MOST_GPU_BYTES
    return {
        "PSNR": ours.psnr_db >= other.psnr_db,
        f"time <= {MOST_TIME}": time_share <= MOST_TIME,
        f"Gaussians <= {MOST_GAUSSIANS}": share <= MOST_GAUSSIANS,
        f"GPU memory <= {MOST_GPU_BYTES / 1e9:.0f} GB": memory,
    }


def table(results: Sequence[Result]) -> str:
    """For people."""
    lines = [
        f"{'':18}{'steps':>8}{'PSNR dB':>9}{'SSIM':>8}{'detail':>8}{'GMSD':>8}{'seconds':>9}{'ms/step':>9}"
        f"{'Gaussians':>12}{'GPU GB':>8}"
    ]
    for r in results:
        memory = None if r.peak_gpu_bytes is None else r.peak_gpu_bytes / 1e9
        lines.append(
            f"{r.name:18}{r.steps:>8,}{_number(r.psnr_db, 9, 2)}{_number(r.ssim, 8, 4)}{_number(r.detail, 8, 3)}"
            f"{_number(r.gmsd, 8, 4)}{_number(r.seconds, 9, 1)}"
            f"{_number(r.ms_per_step, 9, 2)}{_number(r.num_gaussians, 12, 0)}{_number(memory, 8, 2)}"
        )
        lines += [f"  {note}" for note in r.notes]
    for ratio in compared(results):
        reached = "never" if ratio.time_to_their_psnr is None else f"after {ratio.time_to_their_psnr:.2f} of its time"
        lines.append(
            f"ours ({ratio.steps:,} steps) against {ratio.against} ({ratio.their_steps:,}): "
            f"{ratio.psnr_difference_db:+.2f} dB, {ratio.time:.2f} of the time, "
            f"{ratio.gaussians:.2f} of the Gaussians; its PSNR {reached}"
        )
        lines += [f"  {_verdict(met):12} {bar}" for bar, met in ratio.meets.items()]
    return "\n".join(lines) + "\n"


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'–':>{width}}" if value is None else f"{value:>{width},.{digits}f}"


def _verdict(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "missed"

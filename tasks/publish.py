"""The publish stage: put splat, viewer page, report and pictures at the place that the user named."""

import platform
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter

from tasks.cells import divided_scene, measured_training
from tasks.compress import COMPRESS
from tasks.core.georeference import GEOREFERENCE_FILE
from tasks.core.measurements import (
    CostSection,
    EstimateSection,
    PicturesSection,
    PublishSection,
    Report,
    SecondsSection,
)
from tasks.core.model_frame import MODEL_FRAME_FILE
from tasks.core.options import ReconstructOptions
from tasks.core.photoset import PHOTOS_FILE, PhotoSet
from tasks.core.ply import read_ply
from tasks.core.progress import Progress
from tasks.core.refs import GaussiansRef, Outputs, PhotosRef, Publication, Ref, RunContext, SceneRef, SogRef
from tasks.core.render.backends import rasterizer_for
from tasks.core.report.in_files import take_apart
from tasks.core.report.preview import write_fly_around, write_preview
from tasks.core.scene import IMAGES_FOLDER, MODEL_FOLDER, Scene
from tasks.core.sog.layout import LOD_FOLDER, LOD_META_FILE
from tasks.core.stage_code import StageCode, installed_version
from tasks.core.storage import StoredFile, describe_files
from tasks.core.usage import PeakMemory
from tasks.core.viewer.bundle import VIEWER_FOLDER
from tasks.core.viewer.options import PublishOptions
from tasks.core.viewer.page import ViewerSettings, start_view, write_page
from tasks.photos import PHOTOS
from tasks.places.destination import Destination, open_destination
from tasks.places.result_files import (
    COLMAP_FOLDER,
    FLY_AROUND_FILE,
    PAGE_FILE,
    PLY_FILE,
    PREVIEW_FILE,
    REPORT_DATA_FILE,
    REPORT_FILE,
    SPLAT_FILE,
    STREAM_PAGE_FILE,
)
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import PREVIEW_PICTURE
from tasks.reporting.progress import stage_progress
from tasks.running.gpu import computing_backend
from tasks.running.settings import settings_in_use
from tasks.running.stage import Stage, open_output, run_stage
from tasks.sfm import SFM

PICTURES = Stage(  # an output of its own, since drawing takes most of the time
    "pictures",
    StageCode(
        (
            "tasks.core.report.preview",
            "tasks.core.viewer.page",
            "tasks.core.measurements",
            "tasks.core.render.backends",
        ),
        ("numba", "numpy", "PIL", "scipy", "torch", "gsplat"),
    ),
    PicturesSection,
)
PUBLISH = Stage(
    "publish",
    StageCode(
        ("tasks.core.report.html", "tasks.core.report.in_files", *PICTURES.code.modules),
        (*PICTURES.code.libraries, "matplotlib"),
        (
            "tasks/publish.py",
            "tasks/core/report/report.html.j2",
            "tasks/core/viewer/early.js",
            "tasks/core/viewer/page.css",
            "tasks/core/viewer/page.html.j2",
            "tasks/core/viewer/start.js",
            "tasks/core/viewer/npm/package-lock.json",
        ),
    ),
    PublishSection,
)
DELIVERED_FILE = "delivered.json"  # in the stage's output: the files that were delivered to the destination
_DELIVERED = TypeAdapter(tuple[StoredFile, ...])
REPORTED_PACKAGES = ("spaceport", "prefect", "pycolmap", "torch", "gsplat", "numba", "numpy", "pillow")


@PUBLISH.task
def publish_splat(
    photos: PhotosRef | None,
    scene: SceneRef,
    gaussians: GaussiansRef,
    sog: SogRef,
    options: ReconstructOptions,
    destination: str,
    started_at: float,
    context: RunContext,
    estimate: EstimateSection | None = None,
) -> Publication:
    """Put the result at `destination`, a local folder or `s3://bucket/prefix`.

    The result of an earlier run is replaced at the very end; if it is identical, it stays as it is.
    `started_at` is the run's start in seconds since the epoch, `estimate` the estimate made at that time. Raises
    DestinationError.
    """
    store = open_workspace(context.workspace)
    target = open_destination(destination, store)
    outputs = Outputs(photos=photos, scene=scene, gaussians=gaussians, sog=sog)

    def compute(folder: Path) -> PublishSection:
        def report(publish_start: float, memory: PeakMemory) -> Report:
            return _compose_report(outputs, options, publish_start, started_at, context, estimate, memory)

        return _deliver(outputs, target, folder / DELIVERED_FILE, report, context, options.publish)

    output = run_stage(
        PUBLISH,
        context,
        # The outputs' names count too: they depend on all inputs, and the report shows more than the digests cover.
        inputs=[part for ref in outputs.by_stage.values() for part in (PurePosixPath(ref.uri).name, ref.digest)],
        options={
            "destination": destination,
            "capture": scene.capture,
            "options": options.spelled_out(),
            "degradations": list(gaussians.degradations),
        },
        compute=compute,
        still_valid=lambda output: target.holds(_DELIVERED.validate_json(store.read(output.uri, DELIVERED_FILE))),
    )
    store.write_run_file(context.run, PREVIEW_PICTURE, target.read(PREVIEW_FILE))
    return Publication.of(
        output,
        place=target.uri,
        page=target.link(PAGE_FILE),
        report=target.link(REPORT_FILE),
        cache_hits=outputs.cached_stages,
        **PUBLISH.measured(output, context).model_dump(),
    )


def _deliver(
    outputs: Outputs,
    target: Destination,
    list_file: Path,
    report_of: Callable[[float, PeakMemory], Report],
    context: RunContext,
    options: PublishOptions,
) -> PublishSection:
    """Assemble the result, deliver it, and write the list of its files."""
    start = time.time()
    report_progress = stage_progress(PUBLISH.name)
    scene, sog = open_output(outputs.scene, context), open_output(outputs.sog, context)
    loaded = Scene.load(scene)
    with PeakMemory() as memory, target.scratch() as partial:
        report_progress(Progress(0, 5, "copying"))
        shutil.copy2(sog / SPLAT_FILE, partial)
        if (sog / LOD_FOLDER).is_dir():
            shutil.copytree(sog / LOD_FOLDER, partial / LOD_FOLDER)
        shutil.copy2(open_output(outputs.gaussians, context) / PLY_FILE, partial)
        shutil.copytree(scene / MODEL_FOLDER, partial / COLMAP_FOLDER / MODEL_FOLDER)
        shutil.copytree(scene / IMAGES_FOLDER, partial / COLMAP_FOLDER / IMAGES_FOLDER)
        # written as null if there is none: the file of an earlier run must not seem to belong to this splat
        described = "null" if loaded.georeference is None else loaded.georeference.model_dump_json(indent=1)
        (partial / GEOREFERENCE_FILE).write_text(described, encoding="utf-8")
        if (scene / MODEL_FRAME_FILE).is_file():
            shutil.copy2(scene / MODEL_FRAME_FILE, partial)
        report_progress(Progress(1, 5, "preview and fly-around"))
        view = start_view(loaded, outputs.scene.capture, _days(outputs.photos, context))
        drawn = open_output(_pictures(outputs, view, context), context)
        for picture in (PREVIEW_FILE, FLY_AROUND_FILE):
            shutil.copy2(drawn / picture, partial)
        report_progress(Progress(2, 5, "viewer page"))
        _write_pages(partial, view, in_files=options.page == "files")
        report_progress(Progress(3, 5, "report"))
        report = report_of(start, memory)
        from tasks.core.report.html import write_report  # loads matplotlib, which takes a second

        cells = None if outputs.gaussians.plan is None else divided_scene(outputs.gaussians.plan, context)
        write_report(report, loaded, sog / "held_out", partial / REPORT_FILE, partial / FLY_AROUND_FILE, cells)
        if options.page == "files":
            take_apart(partial / REPORT_FILE, partial / VIEWER_FOLDER)
        (partial / REPORT_DATA_FILE).write_text(report.model_dump_json(indent=1), encoding="utf-8")
        report_progress(Progress(4, 5, "putting into place"))
        list_file.write_bytes(_DELIVERED.dump_json(describe_files(partial), indent=1))
        target.deliver(partial)
    report_progress(Progress(5, 5, target.uri))
    return PublishSection(
        psnr_db=report.train.psnr_db,
        ssim=report.train.ssim,
        gmsd=report.train.gmsd,
        detail=report.train.detail,
        num_gaussians=report.train.num_gaussians,
        sog_bytes=report.sog.bytes,
        degradations=report.degradations,
    )


def _pictures(outputs: Outputs, view: ViewerSettings, context: RunContext) -> Ref:
    """Return the stored pictures of a splat, drawn if they are not in the workspace. The scene determines the view."""

    def draw(folder: Path) -> PicturesSection:
        splat, rasterizer = read_ply(open_output(outputs.gaussians, context) / PLY_FILE), rasterizer_for("auto")
        write_preview(splat, view.camera, rasterizer, folder / PREVIEW_FILE)
        write_fly_around(splat, view.camera, view.target, view.up, view.around, rasterizer, folder / FLY_AROUND_FILE)
        return PicturesSection(
            preview_bytes=(folder / PREVIEW_FILE).stat().st_size,
            fly_around_bytes=(folder / FLY_AROUND_FILE).stat().st_size,
        )

    return run_stage(
        PICTURES,
        context,
        inputs=[outputs.gaussians.digest, outputs.scene.digest],
        compute=draw,
        backend=computing_backend(PICTURES.name, "auto", context),
    )


def _write_pages(folder: Path, view: ViewerSettings, *, in_files: bool) -> None:
    """Write the page that shows the splat; for a large splat also the page that streams it, for web browsers."""
    pictures = folder / PREVIEW_FILE, FLY_AROUND_FILE
    streamed = f"{LOD_FOLDER}/{LOD_META_FILE}"
    stream_page = STREAM_PAGE_FILE if (folder / streamed).is_file() else None
    splat = SPLAT_FILE if in_files else folder / SPLAT_FILE
    write_page(splat, folder / PAGE_FILE, view, *pictures, stream_page, in_files=in_files)
    if stream_page is not None:
        write_page(streamed, folder / STREAM_PAGE_FILE, view, *pictures, in_files=in_files)


def _days(photos: PhotosRef | None, context: RunContext) -> str | None:
    """The day or days on which the photos were taken; None if no photo has a date."""
    if photos is None:
        return None
    content = open_workspace(context.workspace).read(photos.uri, PHOTOS_FILE)
    stored = PhotoSet.model_validate_json(content)
    taken = [photo.taken_at for photo in stored.photos]
    moments = sorted(datetime.fromisoformat(moment) for moment in taken if moment)
    if not moments:
        return None
    first, last = (f"{moment:%-d %B %Y}" for moment in (moments[0], moments[-1]))
    return first if first == last else f"{first} – {last}"


def _compose_report(
    outputs: Outputs,
    options: ReconstructOptions,
    publish_start: float,
    started_at: float,
    context: RunContext,
    estimate: EstimateSection | None,
    publish_memory: PeakMemory,
) -> Report:
    now = time.time()
    price = settings_in_use().hourly_cost_usd
    stages = outputs.by_stage
    costs = {name: ref.cost_usd for name, ref in stages.items()}
    costs["publish"] = None if price is None else price * (now - publish_start) / 3600
    sfm = SFM.measured(outputs.scene, context)
    sog = COMPRESS.measured(outputs.sog, context)
    known_costs = [cost for cost in costs.values() if cost is not None]
    return Report(
        capture=outputs.scene.capture,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        photos=None if outputs.photos is None else PHOTOS.measured(outputs.photos, context),
        sfm=sfm,
        train=measured_training(outputs.gaussians, context),
        sog=sog,
        seconds=SecondsSection(
            **{name: ref.seconds for name, ref in stages.items()},
            publish=now - publish_start,
            total=now - started_at,
        ),
        cost_usd=CostSection(**costs, total=sum(known_costs) if known_costs else None),
        estimate=estimate,
        peak_memory_bytes=max([publish_memory.peak_bytes, *(ref.peak_memory_bytes or 0 for ref in stages.values())]),
        cache_hits=outputs.cached_stages,
        degradations=(*sfm.degradations, *outputs.gaussians.degradations, *sog.degradations),
        options=options.spelled_out(),
        versions={
            "python": platform.python_version(),
            **{name: installed_version(name) for name in REPORTED_PACKAGES},
        },
        code_versions={name: ref.code_version for name, ref in stages.items()},
    )

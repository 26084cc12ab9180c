"""The publish stage: splat, viewer page, report and pictures at the place people asked for."""

import platform
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.errors import StorageError
from tasks.core.georeference import GEOREFERENCE_FILE
from tasks.core.measurements import (
    CostSection,
    EstimateSection,
    PhotosSection,
    PicturesSection,
    Report,
    SecondsSection,
    SfmSection,
    SogSection,
    TrainSection,
)
from tasks.core.options import ReconstructOptions
from tasks.core.peak_memory import PeakMemory
from tasks.core.photoset import PHOTOS_FILE, PhotoSet
from tasks.core.ply import read_ply
from tasks.core.progress import Progress
from tasks.core.refs import GaussiansRef, PhotosRef, Publication, Ref, RunContext, SceneRef, SogRef
from tasks.core.render.backends import rasterizer_for
from tasks.core.report.preview import write_fly_around, write_preview
from tasks.core.scene import IMAGES_FOLDER, MODEL_FOLDER, Scene
from tasks.core.sog.layout import LOD_FOLDER, LOD_META_FILE
from tasks.core.stage_code import StageCode, installed_version
from tasks.core.storage import Workspace
from tasks.core.viewer.page import ViewerSettings, start_view, write_page
from tasks.places.destination import (
    COLMAP_FOLDER,
    FLY_AROUND_FILE,
    PAGE_FILE,
    PLY_FILE,
    PREVIEW_FILE,
    REPORT_DATA_FILE,
    REPORT_FILE,
    SPLAT_FILE,
    STREAM_PAGE_FILE,
    open_destination,
)
from tasks.places.workspace import open_workspace
from tasks.reporting.pictures import PREVIEW_PICTURE
from tasks.reporting.progress import stage_progress
from tasks.running.backend import computing_backend
from tasks.running.dispatch import run_elsewhere, runs_elsewhere
from tasks.running.retries import stage_task
from tasks.running.settings import settings_in_use
from tasks.running.stage import open_output, read_measurements, run_stage

STAGE = "publish"
PUBLICATION_FILE = "publication.json"
PICTURES = "pictures"  # an output of its own, since drawing takes most of publishing
PICTURES_CODE = StageCode(
    ("tasks.core.report.preview", "tasks.core.viewer.page", "tasks.core.measurements", "tasks.core.render.backends"),
    ("numba", "numpy", "PIL", "scipy", "torch", "gsplat"),
)
REPORTED_PACKAGES = ("spaceport", "prefect", "pycolmap", "torch", "gsplat", "numba", "numpy", "pillow")


@stage_task(STAGE)
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

    What an earlier run put there is replaced at the very end. `started_at` is the run's start in seconds since the
    epoch, `estimate` what was expected of it then. Raises DestinationError.
    """
    store = open_workspace(context.workspace)
    if runs_elsewhere(STAGE, context):
        run_elsewhere(STAGE, context)
        return _published(store, context)
    start = time.time()
    report_progress = stage_progress(STAGE)
    target = open_destination(destination, store)
    scene_folder, sog_folder = open_output(scene.uri, context), open_output(sog.uri, context)
    ply = open_output(gaussians.uri, context) / PLY_FILE
    loaded = Scene.load(scene_folder)

    with PeakMemory() as memory, target.scratch() as partial:
        report_progress(Progress(0, 5, "copying"))
        shutil.copy2(sog_folder / SPLAT_FILE, partial)
        if (sog_folder / LOD_FOLDER).is_dir():
            shutil.copytree(sog_folder / LOD_FOLDER, partial / LOD_FOLDER)
        shutil.copy2(ply, partial)
        shutil.copytree(scene_folder / MODEL_FOLDER, partial / COLMAP_FOLDER / MODEL_FOLDER)
        shutil.copytree(scene_folder / IMAGES_FOLDER, partial / COLMAP_FOLDER / IMAGES_FOLDER)
        # null where there is none: what an earlier run left at the destination must not speak for this splat
        described = "null" if loaded.georeference is None else loaded.georeference.model_dump_json(indent=1)
        (partial / GEOREFERENCE_FILE).write_text(described, encoding="utf-8")
        report_progress(Progress(1, 5, "preview and fly-around"))
        view = start_view(loaded, scene.capture, None if photos is None else _days(photos, store))
        drawn = open_output(_pictures(scene, gaussians, view, context), context)
        for picture in (PREVIEW_FILE, FLY_AROUND_FILE):
            shutil.copy2(drawn / picture, partial)
        store.write_run_file(context.run, PREVIEW_PICTURE, (drawn / PREVIEW_FILE).read_bytes())
        report_progress(Progress(2, 5, "viewer page"))
        _write_pages(partial, view)
        report_progress(Progress(3, 5, "report"))
        report = _compose_report(photos, scene, gaussians, sog, options, start, started_at, context, estimate, memory)
        from tasks.core.report.html import write_report  # matplotlib takes a second, which other stages do without

        write_report(report, loaded, sog_folder / "held_out", partial / REPORT_FILE, partial / FLY_AROUND_FILE)
        (partial / REPORT_DATA_FILE).write_text(report.model_dump_json(indent=1), encoding="utf-8")
        report_progress(Progress(4, 5, "putting into place"))
        target.deliver(partial)
    report_progress(Progress(5, 5, target.uri))
    publication = Publication(
        uri=target.uri,
        page=target.link(PAGE_FILE),
        report=target.link(REPORT_FILE),
        psnr_db=report.train.psnr_db,
        ssim=report.train.ssim,
        gmsd=report.train.gmsd,
        detail=report.train.detail,
        num_gaussians=report.train.num_gaussians,
        sog_bytes=report.sog.bytes,
        seconds=report.seconds.publish,
        cost_usd=report.cost_usd.publish,
        peak_memory_bytes=memory.peak_bytes,
        cache_hits=report.cache_hits,
        degradations=report.degradations,
    )
    store.write_run_file(context.run, PUBLICATION_FILE, publication.model_dump_json(indent=1).encode())
    return publication


def _pictures(scene: SceneRef, gaussians: GaussiansRef, view: ViewerSettings, context: RunContext) -> str:
    """The stored pictures of a splat, drawn unless they are in the workspace; the view follows from the scene."""

    def draw(folder: Path) -> PicturesSection:
        splat, rasterizer = read_ply(open_output(gaussians.uri, context) / PLY_FILE), rasterizer_for("auto")
        write_preview(splat, view.camera, rasterizer, folder / PREVIEW_FILE)
        write_fly_around(splat, view.camera, view.target, view.up, view.around, rasterizer, folder / FLY_AROUND_FILE)
        return PicturesSection(
            preview_bytes=(folder / PREVIEW_FILE).stat().st_size,
            fly_around_bytes=(folder / FLY_AROUND_FILE).stat().st_size,
        )

    output = run_stage(
        PICTURES,
        PICTURES_CODE,
        context,
        inputs=[gaussians.digest, scene.digest],
        options={},
        compute=draw,
        backend=computing_backend(PICTURES, "auto", context),
    )
    return output.uri


def _published(store: Workspace, context: RunContext) -> Publication:
    """What the publish run left in the run's folder. Raises StorageError."""
    content = store.read_run_file(context.run, PUBLICATION_FILE)
    if content is None:
        raise StorageError(f"The publish run ended well but {PUBLICATION_FILE} is not in {store.run_uri(context.run)}.")
    return Publication.model_validate_json(content)


def _write_pages(folder: Path, view: ViewerSettings) -> None:
    """The page that holds its splat; for a large one also the page that streams it, to which the web is sent on."""
    pictures = folder / PREVIEW_FILE, FLY_AROUND_FILE
    streamed = f"{LOD_FOLDER}/{LOD_META_FILE}"
    stream_page = STREAM_PAGE_FILE if (folder / streamed).is_file() else None
    write_page(folder / SPLAT_FILE, folder / PAGE_FILE, view, *pictures, stream_page)
    if stream_page is not None:
        write_page(streamed, folder / STREAM_PAGE_FILE, view, *pictures)


def _days(photos: PhotosRef, store: Workspace) -> str | None:
    """The day or days on which the photos were taken; None when none of them says it."""
    stored = PhotoSet.model_validate_json(store.read(photos.uri, PHOTOS_FILE))
    taken = [photo.taken_at for photo in stored.photos]
    moments = sorted(datetime.fromisoformat(moment) for moment in taken if moment)
    if not moments:
        return None
    first, last = (f"{moment:%-d %B %Y}" for moment in (moments[0], moments[-1]))
    return first if first == last else f"{first} – {last}"


def _compose_report(
    photos: PhotosRef | None,
    scene: SceneRef,
    gaussians: GaussiansRef,
    sog: SogRef,
    options: ReconstructOptions,
    publish_start: float,
    started_at: float,
    context: RunContext,
    estimate: EstimateSection | None,
    publish_memory: PeakMemory,
) -> Report:
    stages: dict[str, Ref] = {"sfm": scene, "train": gaussians, "compress": sog}
    if photos is not None:
        stages = {"photos": photos, **stages}
    now = time.time()
    price = settings_in_use().hourly_cost_usd
    costs = {name: ref.cost_usd for name, ref in stages.items()}
    costs["publish"] = None if price is None else price * (now - publish_start) / 3600
    sog_section = read_measurements(sog.uri, SogSection, context)
    sfm_section = read_measurements(scene.uri, SfmSection, context)
    known_costs = [cost for cost in costs.values() if cost is not None]
    return Report(
        capture=scene.capture,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        photos=None if photos is None else read_measurements(photos.uri, PhotosSection, context),
        sfm=sfm_section,
        train=read_measurements(gaussians.uri, TrainSection, context),
        sog=sog_section,
        seconds=SecondsSection(
            **{name: ref.seconds for name, ref in stages.items()},
            publish=now - publish_start,
            total=now - started_at,
        ),
        cost_usd=CostSection(**costs, total=sum(known_costs) if known_costs else None),
        estimate=estimate,
        peak_memory_bytes=max([publish_memory.peak_bytes, *(ref.peak_memory_bytes or 0 for ref in stages.values())]),
        cache_hits=tuple(name for name, ref in stages.items() if ref.cached),
        degradations=(*sfm_section.degradations, *gaussians.degradations, *sog_section.degradations),
        options=options.spelled_out(),
        versions={
            "python": platform.python_version(),
            **{name: installed_version(name) for name in REPORTED_PACKAGES},
        },
        code_versions={name: ref.code_version for name, ref in stages.items()},
    )

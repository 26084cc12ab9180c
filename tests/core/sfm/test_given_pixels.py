"""Images of a given model whose pixels are not plain: they become so, as photos do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.pixels import icc
from tasks.core.scene import Scene
from tasks.core.sfm.import_model import import_model
from tests.core.sfm.given_model import HEIGHT, WIDTH, write_given
from tests.core.sfm.test_importer import checksums


def replace_images(folder: Path, make: Callable[[Image.Image], Image.Image], suffix: str, **options: object) -> None:
    """Give the model's images other pixels, under the same names with another suffix."""
    model = pycolmap.Reconstruction(folder / "sparse/0")
    for image in (model.image(i) for i in model.reg_image_ids()):
        path = folder / "images" / image.name
        with Image.open(path) as opened:
            made = make(opened.convert("RGB"))
        path.unlink()
        image.name = str(Path(image.name).with_suffix(suffix))
        made.save(folder / "images" / image.name, **options)
    model.write_binary(folder / "sparse/0")


def cut_out(image: Image.Image) -> Image.Image:
    """Magenta beneath transparent pixels on the right."""
    made = image.convert("RGBA")
    made.paste((255, 0, 255, 0), (image.width // 2, 0, image.width, image.height))
    return made


def thermal(image: Image.Image) -> Image.Image:
    return Image.fromarray((7000 + np.asarray(image.convert("L"), np.uint16) * 6).astype(np.uint16))


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("make", "suffix", "camera_model", "said"),
    [
        (cut_out, ".png", "PINHOLE", "3 images have transparent pixels: they are black"),
        (cut_out, ".png", "SIMPLE_RADIAL", "3 images have transparent pixels: they are black"),
        (sixteen_bits, ".png", "PINHOLE", "levels from 0 to 65,535 are black to white"),
        (sixteen_bits, ".tif", "SIMPLE_RADIAL", "levels from 0 to 65,535 are black to white"),
        (thermal, ".tif", "PINHOLE", "3 images of more than 8 bits were scaled alike: levels from 7,0"),
    ],
    ids=["cut out", "cut out, lens", "16 bits", "16 bits, lens", "thermal"],
)
def test_images_that_are_not_plain_become_so_as_photos_do(
    make: Callable[[Image.Image], Image.Image], suffix: str, camera_model: str, said: str, tmp_path: Path
) -> None:
    """A model that is ready is copied, another one undistorted: both take the same way."""
    folder = tmp_path / "given"
    write_given(folder, camera_model=camera_model)
    originals = {}
    for number in (1, 2, 3):
        smooth = Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8))
        originals[number] = smooth.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        originals[number].save(folder / f"images/{number}.jpg", quality=100)
    replace_images(folder, make, suffix)
    before = checksums(folder)
    section = import_model(folder, tmp_path / "out", 320, lambda _: None)
    assert checksums(folder) == before
    assert [said in sentence for sentence in section.degradations] == [True]
    scene = Scene.load(tmp_path / "out")
    grey = [np.asarray(image.convert("L"), float) for image in originals.values()]
    for number, camera in enumerate(sorted(scene.cameras, key=lambda camera: camera.name)):
        found = scene.image(camera).astype(float)
        with Image.open(scene.image_path(camera)) as stored:
            assert stored.mode in ("L", "RGB")
        if make is cut_out:
            half = found.shape[1] // 2
            assert not found[:, half + 3 :].any()
            assert found[:, : half - 3].mean() == pytest.approx(
                np.asarray(originals[number + 1], float)[:, : WIDTH // 2 - 3].mean(), abs=4
            )
        elif make is sixteen_bits:
            assert found.mean() == pytest.approx(grey[number].mean(), abs=4)  # levels: undistortion crops some pixels
        else:
            black, white = np.quantile(grey, [0.001, 0.999])
            assert found.mean() == pytest.approx(255 * (grey[number].mean() - black) / (white - black), abs=6)


def test_images_of_a_wide_gamut_are_stored_in_srgb(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    write_given(folder)
    space = icc.display_p3().profile
    replace_images(folder, lambda _: Image.new("RGB", (WIDTH, HEIGHT), (117, 251, 76)), ".jpg", icc_profile=space)
    section = import_model(folder, tmp_path / "out", 320, lambda _: None)
    assert section.degradations == ("3 images in colours of Display P3 were converted to sRGB.",)
    scene = Scene.load(tmp_path / "out")
    assert np.abs(scene.image(scene.cameras[0]) - np.array([0.0, 255, 0])).max() < 12  # levels: out of 8 bits and JPEG

"""Crops of a camera's photos, and cameras that fail as a whole."""

from tasks.core.photoset import Photo, PhotoSet
from tasks.core.sfm import doubts
from tasks.core.sfm.lenses import failed_cameras, largest_of_crops


def photos(camera: str | None, sizes: list[tuple[int, int]]) -> list[Photo]:
    return [
        Photo(name=f"{camera}/{i}.jpg", width=width, height=height, sha256="", camera=camera)
        for i, (width, height) in enumerate(sizes)
    ]


def test_photos_of_many_sizes_were_cropped() -> None:
    crops = photos("DJI M3T", [(4000 - 100 * i, 3000 - 70 * i) for i in range(8)])
    assert largest_of_crops(crops) == {"DJI M3T": 5000.0}
    [said] = doubts.of_crops(PhotoSet(photos=tuple(crops)))
    assert "The photos of DJI M3T have 8 different sizes: they were cropped" in said


def test_formats_of_a_camera_are_no_crops() -> None:
    formats = [(4000, 3000), (3000, 4000), (4000, 2250), (2250, 4000), (3000, 3000)] * 4
    assert largest_of_crops(photos("Canon", formats)) == {}
    assert largest_of_crops(photos(None, [(400 + i, 300) for i in range(9)])) == {}
    assert largest_of_crops([*photos("A", [(400, 300)] * 9), *photos("B", [(500, 300)] * 9)]) == {}


def test_a_camera_fails_only_as_a_whole_and_beside_a_scene() -> None:
    wide, heat = photos("W", [(4000, 3000)] * 10), photos("T", [(640, 512)] * 10)
    names = [photo.name for photo in wide]
    [failed] = failed_cameras([*wide, *heat], names, 0.6)
    assert (failed.name, len(failed.photos)) == ("T, 640x512 px", 10)
    assert failed_cameras([*wide, *heat], [*names, heat[3].name], 0.6) == ()
    assert failed_cameras([*wide, *heat], names[:5], 0.6) == ()
    assert failed_cameras([*wide, *heat], [], 0.6) == ()
    assert failed_cameras([*wide, *heat[:2]], names, 0.6) == ()
    assert failed_cameras([*wide[:3], *heat], names[:3], 0.6) == ()
    [of_heat] = doubts.of_failed_cameras((failed,), {photo.name: "only 12 features" for photo in heat})
    assert of_heat.startswith("None of the 10 photos of T, 640x512 px could be placed")

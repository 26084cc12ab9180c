"""Why photos were not placed, from what the database knows of them."""

import pycolmap

from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.mapping import Mapped

FEW_FEATURES = 100  # a sharp photo has thousands
LEAST_MATCHES = 15  # points that two photos must share to count as a pair: pycolmap's min_num_inliers


def reasons(database: FeatureDatabase, mapped: Mapped) -> dict[str, str]:
    """One phrase for each photo that the model lacks, by the user's name for it."""
    placed = set() if mapped.model is None else {int(i) for i in mapped.model.reg_image_ids()}
    with pycolmap.Database.open(database.path) as known:
        names = {int(image.image_id): image.name for image in known.read_all_images()}
        features = {i: int(known.num_keypoints_for_image(i)) for i in names}
        pairs, counts = known.read_two_view_geometry_num_inliers()
    shared: dict[int, dict[int, int]] = {i: {} for i in names}  # photo: other photo: points in common
    for pair, count in zip(pairs, counts, strict=True):
        first, second = (int(i) for i in pycolmap.pair_id_to_image_pair(pair))
        if count >= LEAST_MATCHES:
            shared[first][second] = shared[second][first] = int(count)
    return {
        database.user_name(names[i]): _reason(features[i], shared[i], placed) for i in sorted(names.keys() - placed)
    }


def _reason(features: int, shared: dict[int, int], placed: set[int]) -> str:
    if features < FEW_FEATURES:
        return f"only {features} features: blurred, dark or without texture"
    if not shared:
        return "shares no points with any other photo it was compared with: too little overlap, or another place"
    to_scene = [count for other, count in shared.items() if other in placed]
    if not to_scene:
        return f"shares points with {len(shared)} photos, none of which is in the scene: a separate part"
    return (
        f"shares points with {len(to_scene)} photos of the scene, at most {max(to_scene)} with one: "
        "too few of them in three photos to place it"
    )

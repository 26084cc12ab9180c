"""The photos of a reconstruction's database, where the workspace's file system has no links, as exFAT has none."""

import errno
import os
from pathlib import Path

import pytest

from tasks.core.photoset import IMAGES_FOLDER, Photo
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.options import SfmOptions


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_photos_are_copied_where_there_are_no_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / IMAGES_FOLDER).mkdir()
    (tmp_path / IMAGES_FOLDER / "a b.jpg").write_bytes(b"photo")
    photos = (Photo(name="a b.jpg", width=64, height=48, sha256=""),)
    monkeypatch.setattr(os, "symlink", refuse)
    database = FeatureDatabase(tmp_path / "work", tmp_path, photos, SfmOptions())
    assert (database.images / "000001.jpg").read_bytes() == b"photo"

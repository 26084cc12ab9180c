"""Flight logs as files: whatever photos.flight_log names, it is read within bounds and none of it is quoted."""

import os
from pathlib import Path

import pytest

from tasks.core.errors import PhotosError
from tasks.core.photos import flight_log
from tasks.core.photos.flight_log import find_log, log_on_machine, read_flight_log

SECRET = "hunter2"
LONGEST_MESSAGE = 500  # characters
COLUMNS = "latitude,longitude,altitude(m)"


def refused(path: Path) -> str:
    with pytest.raises(PhotosError) as caught:
        read_flight_log(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        f"root:x:{SECRET}:0:root:/root:/bin/bash\n",
        f"localhost:5432:*:me:{SECRET}\nother\n",
        f"{COLUMNS},{SECRET}\n{SECRET},8,100\n",
        f"{COLUMNS}\n47,{SECRET},100\n",
        f"{COLUMNS}\n47,8,100{SECRET}\n",
        f"{COLUMNS}\n47,8,100 {SECRET}\n".replace("2", ""),
        f"latitude ({SECRET}),longitude,altitude(m)\n47,8,100\n",
        f"latitude,longitude,altitude({SECRET})\n47,8,100\n",
        f"{COLUMNS},time\n47,8,100,{SECRET}\n",
        f'{COLUMNS}\n"{SECRET}{"4" * 200_000}\n',
        f"{SECRET}{'x' * 100_000}\n",
        f"{SECRET}{',x' * 30_000}\n",
        ",".join(["latitude"] * 5_000) + "\n",
        f"{COLUMNS}\n{SECRET * 9_000},8,100\n",
    ],
)
def test_a_message_quotes_nothing_of_the_file_and_is_short(content: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(content)
    said = refused(tmp_path / "log.csv")
    assert "log.csv" in said
    assert "hunter" not in said
    assert len(said) <= LONGEST_MESSAGE


def test_bytes_that_are_no_text_are_not_quoted_either(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(f"{COLUMNS}\n47,8,1\n".encode("utf-16"))
    assert refused(tmp_path / "log.csv") == "The flight log 'log.csv' is not in UTF-8: give a CSV file in UTF-8."


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to a device"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    """A FIFO blocked for ever, and /dev/zero filled the memory."""
    path = tmp_path / "log.csv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert "'log.csv' is no regular file" in refused(path)
    with pytest.raises(PhotosError, match="no regular file"):  # before anything hashes it
        log_on_machine(str(path), relative=False)


def test_a_file_is_not_read_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    with path.open("wb") as file:
        file.truncate(flight_log.MOST_LOG_BYTES + 1)
    assert "has more than 64 MiB" in refused(path)
    with pytest.raises(PhotosError, match="more than 64 MiB"):
        log_on_machine(str(path), relative=False)
    monkeypatch.setattr(flight_log, "MOST_LOG_BYTES", 10)  # a file of the system has no size before it is read
    assert "has more than" in refused(Path("/proc/self/status"))


def test_more_places_than_any_flight_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.photos.flight_log.MOST_PLACES", 3)
    (tmp_path / "log.csv").write_text(f"{COLUMNS}\n" + "47,8,1\n" * 3)
    assert len(read_flight_log(tmp_path / "log.csv")) == 3
    (tmp_path / "log.csv").write_text(f"{COLUMNS}\n" + "47,8,1\n" * 4)
    assert "has more than 3 places" in refused(tmp_path / "log.csv")


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 400, "a" * 300 + "/log.csv", "nul\0.csv"])
def test_a_name_that_no_file_can_have_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    assert log_on_machine(name, relative=True) is None
    assert refused(tmp_path / name).startswith("The flight log ")


def test_a_relative_name_is_never_that_of_a_file_where_the_process_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's archive may name a log that it does not hold."""
    for folder in ("photos/logs", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "log.csv").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    photos = tmp_path / "photos"
    assert find_log("log.csv", photos) == photos / "logs/log.csv"
    assert find_log(str(tmp_path / "elsewhere/log.csv"), photos) == tmp_path / "elsewhere/log.csv"
    (photos / "logs/log.csv").unlink()
    assert find_log("log.csv", photos) == photos / "log.csv"
    assert log_on_machine("log.csv", relative=False) is None
    assert log_on_machine("log.csv", relative=True) == tmp_path / "elsewhere/log.csv"


LONG_CELLS = [" " * 60_000 + "(", "(" * 60_000, "1" + " " * 60_000 + "!", "1" * 60_000 + "!", "_" * 60_000 + "1"]


@pytest.mark.parametrize("cell", LONG_CELLS)
def test_headers_are_read_in_linear_time(cell: str, tmp_path: Path) -> None:
    """A header of 1,000 spaces took 200 s: these would take years."""
    (tmp_path / "log.csv").write_text(f"{cell},{COLUMNS}\nx,47,8,1\n")
    assert len(read_flight_log(tmp_path / "log.csv")) == 1


@pytest.mark.parametrize("cell", LONG_CELLS)
def test_values_are_read_in_linear_time(cell: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"{COLUMNS}\n{cell},8,1\n")
    assert "line 2: column 1 (latitude) holds no number" in refused(tmp_path / "log.csv")


@pytest.mark.parametrize("header", ["altitude (m)", "Altitude[ M ]", "altitude( m)", " altitude_m ", "alt.(m)"])
def test_units_in_brackets_are_read_with_spaces_and_in_any_case(header: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"lat,lon,{header}\n47,8,30\n")
    [row] = read_flight_log(tmp_path / "log.csv")
    assert row.place.altitude_m == 30


@pytest.mark.parametrize("header", ["altitude(m", "altitude m)", "altitude(m)x", "altitude(m))", "altitude)(m"])
def test_a_bracket_that_is_not_closed_names_no_unit(header: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"lat,lon,{header}\n47,8,30\n")
    assert "None of the 3 columns" in refused(tmp_path / "log.csv")

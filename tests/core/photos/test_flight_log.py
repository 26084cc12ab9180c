"""Flight logs: units that are said, columns that are told apart, and photos that are found in them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.errors import PhotosError, UnsafeNameError
from tasks.core.photos.flight_log import read_flight_log
from tasks.core.photos.ingest import ingest
from tasks.core.photos.log_match import place_photos
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import Gps, Photo
from tasks.core.progress import ignore_progress
from tests.core.photos.test_ingest import encoded, folder_of, zip_of

FEET_IN_30_48_M = 100


def log(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text)
    return path


def photo(number: int, taken_at: str | None) -> Photo:
    exif = Gps(latitude_deg=1, longitude_deg=1, altitude_m=1)
    return Photo(name=f"{number}.jpg", width=64, height=48, sha256="", taken_at=taken_at, gps=exif)


@pytest.mark.parametrize(
    ("header", "cell"),
    [
        ("altitude(m)", "30.48"),
        ("altitude_m", "30.48"),
        ("Altitude [feet]", "100"),
        ("altitude_above_seaLevel(feet)", "100"),
        ("alt.ft", "100"),
        ("altitude", "100 ft"),
        ("altitude", "30.48m"),
        ("altitude(ft)", "100 feet"),
    ],
)
def test_units_are_read_where_they_are_said(header: str, cell: str, tmp_path: Path) -> None:
    [row] = read_flight_log(log(tmp_path, f"Latitude,Longitude,{header}\n47.5,-8.25,{cell}\n"))
    assert row.place.altitude_m == pytest.approx(30.48)
    assert (row.place.latitude_deg, row.place.longitude_deg, row.time) == (47.5, -8.25, None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latitude,longitude,altitude\n47,8,100\n", r"column 3 \(altitude\) has no unit"),
        ("latitude,longitude,altitude(km)\n47,8,0.1\n", r"column 3 \(altitude\) is neither in metres nor in feet"),
        ("latitude,longitude,altitude(m),altitude(ft)\n47,8,30,100\n", r"column 3 .*, column 4 .* could all be"),
        ("latitude,lat,longitude,altitude(m)\n47,47,8,30\n", r"column 1 .*, column 2 .* could all be the latitude"),
        ("latitude,longitude,height_above_takeoff(m)\n47,8,30\n", "None of the 3 columns of 'log.csv' is the altitude"),
        ("latitude(rad),longitude,altitude(m)\n0.8,8,30\n", r"column 1 \(latitude\) is in another unit"),
        ("latitude,longitude,altitude(m)\n97,8,30\n", r"line 2: column 1 \(latitude\) is beyond 90°"),
        ("latitude,longitude,altitude(m)\n47,-181,30\n", r"line 2: column 2 \(longitude\) is beyond 180°"),
        (
            "latitude,longitude,altitude(m)\n47,8,1e300\n",
            r"line 2: column 3 \(altitude\) is not between -500 and 20,000",
        ),
        ("latitude,longitude,altitude(ft)\n47,8,-2000\n", r"line 2: column 3 .* is not between -500 and 20,000 m"),
        ("latitude,longitude,altitude(m)\n47,east,30\n", r"line 2: column 2 \(longitude\) holds no number"),
        ("latitude,longitude,altitude(m)\n47,8deg ft,30\n", "line 2: column 2 .* holds no number"),
        ("latitude,longitude,altitude(m)\n47,8 ft,30\n", "line 2: column 2 .* is in another unit"),
        ("latitude,longitude,altitude(ft)\n47,8,30 m\n", "two units"),
        ("latitude,longitude,altitude(m),time\n47,8,30,12.5\n", r"line 2: column 4 \(time\) holds no date"),
        ("lat,lon,alt(m),time\n47,8,30,9999-12-31T23:00-12:00\n", r"column 4 \(time\) holds no date"),
        ("lat,lon,alt(m),time\n47,8,30,0001-01-01T01:00+14:00\n", r"column 4 \(time\) holds no date"),
        ("latitude,longitude,altitude(m)\n0,0,30\n,,\n", "no line with latitude"),
        ("latitude,longitude,altitude(m)\n", "no line with latitude"),
        ("# nothing\n\n", "is empty"),
        (",".join(["lat"] * 9), r"column 5 \(latitude\) and 4 more could all be the latitude"),
    ],
)
def test_what_is_not_clear_is_an_error_that_names_the_column(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match=named):
        read_flight_log(log(tmp_path, text))


UTC_LOG = """latitude;longitude;altitude(m);datetime(utc);time(ms)
47.0;8.0;100;2026-05-01 10:00:00;0
47.2;8.0;120;2026-05-01 10:00:10;10000
0;0;0;2026-05-01 10:00:12;12000
47.9;8.0;300;2026-05-01 10:05:00;300000
"""


@pytest.mark.parametrize(("hour", "said"), [("10", ""), ("12", "camera's clock is +2 h from the log's")])
def test_photos_are_found_by_time_also_in_another_time_zone(hour: str, said: str, tmp_path: Path) -> None:
    rows = read_flight_log(log(tmp_path, UTC_LOG))
    times = ("00:05.500000", "01:00", "04:59", "00:00")  # between two lines, far from all, beside one, on one
    photos = [photo(i, f"2026-05-01T{hour}:{time}") for i, time in enumerate(times)]
    placed, how = place_photos(photos, rows)
    assert how.startswith("3 of 4 photos placed")
    assert said in how
    assert ("clock" in how) == bool(said)
    found = [None if p.gps is None else (p.gps.latitude_deg, p.gps.altitude_m) for p in placed]
    assert found == [pytest.approx((47.11, 111.0)), None, (47.9, 300.0), (47.0, 100.0)]


def test_a_log_of_another_day_or_of_many_hours_is_refused(tmp_path: Path) -> None:
    rows = read_flight_log(log(tmp_path, UTC_LOG))
    with pytest.raises(PhotosError, match="does not cover the photos"):
        place_photos([photo(1, "2026-06-01T10:00:00")], rows)
    long_day = "latitude,longitude,altitude(m),time\n47,8,1,2026-05-01 06:00:00\n47,8,1,2026-05-01 12:00:00\n"
    with pytest.raises(PhotosError, match="several time zones"):
        place_photos([photo(1, "2026-05-01T15:30:00")], read_flight_log(log(tmp_path, long_day)))


START = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)
TRACK_MINUTES = 40


def flown(minutes: int = TRACK_MINUTES, *, column: str = "datetime", ahead_minutes: int = 0) -> str:
    """A log with a line each five seconds of a flight 10 m/s to the east, by a clock so far ahead of UTC."""
    lines = [f"latitude,longitude,altitude(m),{column}"]
    for second in range(0, 60 * minutes + 1, 5):
        time = START + timedelta(seconds=second, minutes=ahead_minutes)
        lines.append(f"0,{position_deg(second)},100,{time:%Y-%m-%d %H:%M:%S}")
    return "\n".join(lines)


def position_deg(second: float) -> float:
    return 8 + 10 * second / 111_195


def taken(minutes: range, *, ahead_minutes: int, says: int | None = None, exif: bool = False) -> list[Photo]:
    """Photos at these minutes of the flight, by a camera's clock so far ahead of UTC; EXIF's places err by metres."""
    photos = []
    for minute in minutes:
        time = START + timedelta(minutes=minute + ahead_minutes)
        place = Gps(latitude_deg=4e-5, longitude_deg=position_deg(60 * minute), altitude_m=30)
        taken_at = time.replace(tzinfo=None).isoformat()
        photos.append(
            photo(minute, taken_at).model_copy(update={"utc_offset_minutes": says, "gps": place if exif else None})
        )
    return photos


def error_m(photos: list[Photo], minutes: range, tmp_path: Path, text: str) -> tuple[float, str]:
    placed, how = place_photos(photos, read_flight_log(log(tmp_path, text)))
    found = [
        abs(p.gps.longitude_deg - position_deg(60 * minute)) * 111_195
        for p, minute in zip(placed, minutes, strict=True)
        if p.gps is not None
    ]
    assert len(found) == len(photos)
    return max(found), how


@pytest.mark.parametrize("ahead", [-570, -210, 0, 60, 330, 345, 525, 765, 840])
def test_every_time_zone_is_found_where_the_log_fits_one(ahead: int, tmp_path: Path) -> None:
    minutes = range(2, 39)
    error, how = error_m(taken(minutes, ahead_minutes=ahead), minutes, tmp_path, flown())
    assert error < 1
    assert ("clock" in how) == bool(ahead)


def test_half_an_hour_is_said_in_minutes(tmp_path: Path) -> None:
    minutes = range(2, 39)
    _, how = error_m(taken(minutes, ahead_minutes=330), minutes, tmp_path, flown())
    assert how.endswith("the camera's clock is +5 h 30 min from the log's")


@pytest.mark.parametrize(("ahead", "zones"), [(60, r"-1 h, \+0 h, \+1 h"), (330, r"\+4 h 30 min, \+5 h, \+5 h 30 min")])
def test_a_long_log_that_fits_several_zones_is_refused_where_nothing_tells(
    ahead: int, zones: str, tmp_path: Path
) -> None:
    """Half of the photos fitted the first zone that was tried: they were placed kilometres away, without a word."""
    rows = read_flight_log(log(tmp_path, flown(240)))
    with pytest.raises(PhotosError, match=rf"several time zones \(.*{zones}.*Keep only the lines of this flight"):
        place_photos(taken(range(90, 120), ahead_minutes=ahead), rows)


@pytest.mark.parametrize("ahead", [-210, 0, 60, 330])
def test_places_of_exif_tell_the_zone(ahead: int, tmp_path: Path) -> None:
    minutes = range(230, 239)
    error, _ = error_m(taken(minutes, ahead_minutes=ahead, exif=True), minutes, tmp_path, flown(360))
    assert error < 1


@pytest.mark.parametrize("ahead", [-210, 0, 60, 330])
@pytest.mark.parametrize("column", ["datetime(utc)", "datetime"])
def test_the_offset_that_exif_says_tells_the_zone(ahead: int, column: str, tmp_path: Path) -> None:
    """A log that does not say its clock is UTC's or the camera's; where the photos fit by both, nothing is guessed."""
    minutes = range(230, 239)
    photos = taken(minutes, ahead_minutes=ahead, says=ahead)
    if column == "datetime" and ahead:
        with pytest.raises(PhotosError, match="several time zones"):
            place_photos(photos, read_flight_log(log(tmp_path, flown(600, column=column))))
        return
    error, _ = error_m(photos, minutes, tmp_path, flown(600, column=column))
    assert error < 1


def test_a_log_by_the_cameras_own_clock_needs_no_zone(tmp_path: Path) -> None:
    minutes = range(60)
    text = flown(90, ahead_minutes=600)
    error, how = error_m(taken(minutes, ahead_minutes=600, says=600), minutes, tmp_path, text)
    assert error < 1
    assert "clock" not in how


@pytest.mark.parametrize("wrong", [7, -7, 53])
@pytest.mark.parametrize("zone", [0, 60])
@pytest.mark.parametrize("log_minutes", [TRACK_MINUTES, 100])
def test_a_cameras_clock_that_is_minutes_wrong_is_refused_where_exif_tells(
    wrong: int, zone: int, log_minutes: int, tmp_path: Path
) -> None:
    """Photos were placed kilometres away, without a word."""
    rows = read_flight_log(log(tmp_path, flown(log_minutes)))
    minutes = range(2, 39)
    said = (
        rf"if the camera's clock is {'[-+]'}{abs(zone + wrong) // 60} h( {abs(zone + wrong) % 60} min)? from the log's"
    )
    with pytest.raises(PhotosError, match=rf"times put the photos [\d,]+ m from their places in EXIF, .*{said}"):
        place_photos(taken(minutes, ahead_minutes=zone + wrong, exif=True), rows)


def test_places_of_exif_that_are_nowhere_near_the_log_do_not_count(tmp_path: Path) -> None:
    """Its places are used instead of theirs, which may be wrong altogether."""
    minutes = range(2, 39)
    photos = [
        each.model_copy(update={"gps": Gps(latitude_deg=50, longitude_deg=9, altitude_m=0)})
        for each in taken(minutes, ahead_minutes=0)
    ]
    error, _ = error_m(photos, minutes, tmp_path, flown())
    assert error < 1


@pytest.mark.parametrize("exif", [False, True])
def test_a_log_whose_clock_was_set_back_is_refused(exif: bool, tmp_path: Path) -> None:
    """In autumn an hour comes twice."""
    header, *lines = flown(90).splitlines()
    _, *later = flown(90, ahead_minutes=-60).splitlines()
    text = "\n".join([header, *lines[:240], *later[240:]])
    with pytest.raises(PhotosError, match="two places for 2026-05-01 09:59:55, 35,950 m apart: its clock was set"):
        place_photos(taken(range(2, 88), ahead_minutes=0, exif=exif), read_flight_log(log(tmp_path, text)))


@pytest.mark.parametrize("order", ["newest first", "second half first", "twice"])
def test_the_order_of_the_lines_is_free(order: str, tmp_path: Path) -> None:
    header, *lines = flown().splitlines()
    ordered = {
        "newest first": lines[::-1],
        "second half first": [*lines[240:], *lines[:240]],
        "twice": [*lines, *lines],
    }[order]
    minutes = range(2, 39)
    error, _ = error_m(taken(minutes, ahead_minutes=0), minutes, tmp_path, "\n".join([header, *ordered]))
    assert error < 1


def test_places_between_lines_on_both_sides_of_the_date_line(tmp_path: Path) -> None:
    text = "lat,lon,altitude(m),time\n0,179.9999,10,2026-05-01 10:00:00\n0,-179.9999,20,2026-05-01 10:00:08\n"
    [placed], _ = place_photos([photo(0, "2026-05-01T10:00:02")], read_flight_log(log(tmp_path, text)))
    assert placed.gps is not None
    assert placed.gps.longitude_deg == pytest.approx(179.99995)
    assert placed.gps.altitude_m == pytest.approx(12.5)


def test_without_times_the_order_counts_if_the_numbers_agree(tmp_path: Path) -> None:
    rows = read_flight_log(log(tmp_path, UTC_LOG))
    placed, how = place_photos([photo(i, None) for i in range(3)], rows)
    assert [p.gps.altitude_m for p in placed if p.gps] == [100, 120, 300]
    assert "by the order" in how
    with pytest.raises(PhotosError, match="3 places for 4 usable photos, and the photos have no EXIF time"):
        place_photos([photo(i, None) for i in range(4)], rows)


def test_a_line_that_is_wrong_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    """Blank lines and comments count, and so do the lines of a cell with line breaks."""
    text = '# made by hand\n\nnote,latitude,longitude,altitude(m)\n\n"two\nlines",47,8,1\n# and\nx,97,8,1\n'
    with pytest.raises(PhotosError, match=r"line 8: column 2 \(latitude\)"):
        read_flight_log(log(tmp_path, text))


def test_a_cell_too_long_for_csv_is_an_error_in_words(tmp_path: Path) -> None:
    """A quotation mark that nothing ends takes in all lines after it."""
    endless = '"' + ("4" * 1_000 + "\n") * 200
    with pytest.raises(PhotosError, match=r"is no CSV file near line \d+: export it again"):
        read_flight_log(log(tmp_path, f"latitude,longitude,altitude(m)\n{endless}"))


@pytest.mark.parametrize(("folder", "named"), [("", "log.csv"), ("flight/", "log.csv"), ("flight/", "flight/log.csv")])
def test_ingest_takes_the_log_from_inside_a_zip(folder: str, named: str, tmp_path: Path) -> None:
    files = {f"{folder}{i}.jpg": encoded(i) for i in range(3)} | {
        f"{folder}log.csv": b"lat,lon,altitude(ft)\n47,8,100\n47,8.1,200\n47,8.2,300\n",
        "__MACOSX/log.csv": b"a Mac's own",
    }
    source = zip_of(tmp_path / "flight.zip", files)
    photos = ingest(source, tmp_path / "out", PhotosOptions(flight_log=named), ignore_progress)
    assert photos.flight_log == "3 photos placed by the order of the flight log"
    assert photos.photos[0].gps == Gps(latitude_deg=47, longitude_deg=8, altitude_m=30.48)


def test_two_logs_of_one_name_are_an_error(tmp_path: Path) -> None:
    files = {f"{i}.jpg": encoded(i) for i in range(3)} | {"a/log.csv": b"x", "b/log.csv": b"x"}
    for source in (zip_of(tmp_path / "in.zip", files), folder_of(tmp_path / "in", files)):
        with pytest.raises(PhotosError, match=r"2 files beside the photos could be the flight log 'log\.csv'"):
            ingest(source, tmp_path / "out", PhotosOptions(flight_log="log.csv"), ignore_progress)


def test_a_log_outside_of_the_photos_folder_is_named_by_its_own_path(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", {f"{i}.jpg": encoded(i) for i in range(3)})
    log(tmp_path, "lat,lon,altitude(m)\n47,8,1\n")
    with pytest.raises(UnsafeNameError, match="leads out of its folder"):
        ingest(source, tmp_path / "out", PhotosOptions(flight_log="../log.csv"), ignore_progress)


def test_ingest_takes_the_log_from_beside_the_photos(tmp_path: Path) -> None:
    source = tmp_path / "flight"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(encoded(i))
    log(source, f"lat,lon,altitude(ft)\n47,8,{FEET_IN_30_48_M}\n47,8.1,200\n47,8.2,300\n")
    photos = ingest(source, tmp_path / "out", PhotosOptions(flight_log="log.csv"), ignore_progress)
    assert photos.flight_log == "3 photos placed by the order of the flight log"
    assert photos.photos[0].gps == Gps(latitude_deg=47, longitude_deg=8, altitude_m=30.48)
    with pytest.raises(PhotosError, match=r"'nowhere\.csv' cannot be read"):
        ingest(source, tmp_path / "other", PhotosOptions(flight_log="nowhere.csv"), ignore_progress)

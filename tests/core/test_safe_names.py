"""Whatever a name holds, its path stays below the folder, and no two names share a file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.core.errors import UnsafeNameError
from tasks.core.safe_names import (
    MAX_NAME_BYTES,
    MAX_PART_BYTES,
    TakenNames,
    below,
    printable,
    printable_lines,
    reason,
    safe_name,
)

# Pieces that make names dangerous, among any others.
parts = st.sampled_from(
    ["..", ".", "", "a", "A", "a.jpg", "A.JPG", "C:", "c:a", "~", "ä.jpg", "a\u0308.jpg", "x" * 250, "\0", "\n", "con"]
) | st.text(max_size=8)
separators = st.sampled_from(["/", "\\", "//", "\\\\"])
names = st.tuples(separators | st.just(""), st.lists(st.tuples(parts, separators | st.just("")), max_size=6)).map(
    lambda drawn: drawn[0] + "".join(part + separator for part, separator in drawn[1])
)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("./", "is empty"),
        ("/etc/passwd", "absolute path"),
        ("\\\\host\\a.jpg", "absolute path"),
        ("C:\\photos\\a.jpg", "names a drive"),
        ("c:a.jpg", "names a drive"),
        ("../a.jpg", "leads out"),
        ("a/../../b.jpg", "leads out"),
        ("a\\..\\b.jpg", "leads out"),
        ("a\0.jpg", "control characters"),
        ("a\x1b[2J.jpg", "control characters"),
        ("a\u2028.jpg", "control characters"),
        ("a\udcff.jpg", "not valid UTF-8"),
        ("a" * (MAX_PART_BYTES + 1), "more than 255 bytes"),
        ("/".join(["a" * 200] * 5), "longer than 900 bytes"),
    ],
)
def test_a_name_that_leads_out_or_is_none_is_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeNameError, match=says):
        below(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("strip a/ü 1.jpg", "strip a/ü 1.jpg"),
        ("strip\\a.jpg", "strip/a.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("..a/b...jpg", "..a/b...jpg"),
        ("~/a.jpg", "~/a.jpg"),
    ],
)
def test_an_ordinary_name_stays_as_it_is(name: str, path: str, tmp_path: Path) -> None:
    assert below(tmp_path, name) == tmp_path / path


@settings(max_examples=500, deadline=None)
@given(names)
@example("a/..\\../b")
@example("\\..\\b")
@example("./C:/b")
def test_no_name_leads_out(name: str) -> None:
    folder = Path("/somewhere/out")
    try:
        path = below(folder, name)
    except UnsafeNameError:
        return
    relative = path.relative_to(folder)
    assert ".." not in relative.parts
    assert relative.parts
    assert len(str(relative).encode()) <= MAX_NAME_BYTES
    assert safe_name(relative.as_posix()) == relative.as_posix(), "what is safe stays as it is"


@settings(max_examples=200, deadline=None)
@given(st.lists(names, max_size=8))
@example(["a.jpg", "A.JPG", "a-2.jpg", "a.jpg/b.jpg", "a.jpg/c.jpg", "A.jpg-2"])
@example(["a/b.jpg", "a", "A/B.jpg"])
@example(["ä.jpg", "a\u0308.jpg", "Ä.jpg"])
@example(["x" * 255, "x" * 255])
def test_every_taken_name_has_a_file_of_its_own(wanted: list[str]) -> None:
    """Written in turn, all of them are there, none in place of another, and nothing is beside the folder."""
    taken = TakenNames()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "out"
        folder.mkdir()
        written: dict[str, str] = {}
        for number, name in enumerate(wanted):
            try:
                free = taken.take(name)
            except UnsafeNameError:
                continue
            place = below(folder, free)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x") as file:
                file.write(str(number))
            written[free] = str(number)
        assert {name: (folder / name).read_text() for name in written} == written
        assert len({name.casefold() for name in written}) == len(written)
        assert [entry.name for entry in Path(temporary).iterdir()] == ["out"]


def test_a_name_is_kept_where_it_is_free() -> None:
    taken = TakenNames()
    wanted = ["x/a.jpg", "x/A.jpg", "x/a.jpg", "x/a.jpg/b.jpg", "y/a.jpg", "x"]
    assert [taken.take(name) for name in wanted] == [
        "x/a.jpg",
        "x/A-2.jpg",
        "x/a-3.jpg",
        "x/a.jpg-2/b.jpg",
        "y/a.jpg",
        "x-2",
    ]


def test_characters_that_turn_text_around_are_shown_as_what_they_are() -> None:
    """On a terminal, `a\u202egpj.exe` looks like aexe.jpg."""
    turned = "".join("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert printable(f"a{turned}gpj.exe") == r"a\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069gpj.exe"
    assert printable("Größe שלום 日本 👩‍🚀") == "Größe שלום 日本 👩‍🚀", "other scripts are not"


def test_lines_and_tabs_stay_where_lines_are_shown() -> None:
    assert printable_lines("a\tb\x1b[2J\nc\r\n") == "a\tb\\x1b[2J\nc\\r\n"


def test_what_a_library_says_is_one_short_line() -> None:
    assert reason(ValueError("a\nb")) == r"a\nb"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 10_000))) == 121

"""Options of the photos stage."""

from pydantic import Field

from tasks.core.option_model import OptionModel


class PhotosOptions(OptionModel):
    """What is accepted as a photo, and how large an archive may be."""

    min_side_px: int = Field(
        64,
        title="Smallest photo",
        description="Photos whose shorter side has fewer pixels than this are rejected (px).",
        ge=16,
        le=4096,
    )
    flight_log: str = Field(
        "",
        max_length=1000,
        title="Flight log",
        description="A CSV file with where the drone was, which is used instead of the photos' own GPS: latitude and "
        "longitude in degrees, altitude with its unit in the header, as altitude(ft), and date and time, or one line "
        "for each photo. A path on the machine that reads the photos, or the name of a file in their folder, "
        "also in a .zip or on S3.",
    )
    conversion_quality: int = Field(
        95,
        title="Quality of converted photos",
        description="JPEG quality of photos that have to be rotated, or converted to sRGB or from HEIC, WebP, TIFF, "
        "GIF or BMP (1 to 100). Upright JPEG and PNG files in sRGB are kept byte for byte.",
        ge=50,
        le=100,
    )
    max_archive_members: int = Field(
        20_000,
        title="Most files in a .zip",
        description="An archive with more members than this is refused (count).",
        ge=3,
        le=1_000_000,
    )
    max_archive_gib: float = Field(
        80.0,
        title="Largest .zip, unpacked",
        description="An archive that holds more than this is refused, declared or found while reading (GiB). "
        "5,000 photos of 12 MB take 56 GiB.",
        gt=0,
        le=2000,
    )
    max_archive_ratio: float = Field(
        200.0,
        title="Greatest compression in a .zip",
        description="A member that unpacks to more than this many times its compressed size is refused as a zip bomb "
        "(ratio). Photos compress by less than 10.",
        ge=10,
        le=100_000,
    )

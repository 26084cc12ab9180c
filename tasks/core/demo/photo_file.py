"""One photo as a drone writes it: a JPEG whose EXIF says when, where and with what lens it was taken."""

import io
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from tasks.core.demo.geodesy import Position

MAKE, MODEL = "Spaceport", "Simulated Drone"
JPEG_QUALITY = 94
_SENSOR_WIDTH_MM = 13.2  # of a 1-inch sensor, so that the real focal length differs from its 35 mm equivalent


def _rational(value: float, denominator: int) -> IFDRational:
    return IFDRational(round(value * denominator), denominator)


def _sexagesimal(angle_deg: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes, seconds; seconds to 1e-6, which is 0.03 mm on the ground."""
    millionths = round(abs(angle_deg) * 3600 * 1_000_000)
    minutes, seconds = divmod(millionths, 60 * 1_000_000)
    return IFDRational(minutes // 60, 1), IFDRational(minutes % 60, 1), IFDRational(seconds, 1_000_000)


def jpeg_bytes(
    rgb: NDArray[np.uint8], taken_at: datetime, position: Position, focal_35mm: int, focal_per_width: float
) -> bytes:
    """A JPEG of pixels [height, width, 3] with EXIF.

    Args:
        rgb: sRGB pixels.
        taken_at: local time of the shot.
        position: where GPS believes the camera was.
        focal_35mm: focal length of a full-frame camera with the same view.
        focal_per_width: focal length over the image's longer side.
    """
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = MAKE, MODEL
    exif[Base.Orientation] = 1
    stamp = taken_at.strftime("%Y:%m:%d %H:%M:%S")
    exif[Base.DateTime] = stamp
    details = exif.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = stamp
    details[Base.FocalLength] = _rational(focal_per_width * _SENSOR_WIDTH_MM, 100)
    details[Base.FocalLengthIn35mmFilm] = focal_35mm
    details[Base.ExifImageWidth], details[Base.ExifImageHeight] = rgb.shape[1], rgb.shape[0]
    gps = exif.get_ifd(IFD.GPSInfo)
    gps[GPS.GPSVersionID] = b"\x02\x03\x00\x00"
    gps[GPS.GPSLatitudeRef] = "N" if position.latitude_deg >= 0 else "S"
    gps[GPS.GPSLatitude] = _sexagesimal(position.latitude_deg)
    gps[GPS.GPSLongitudeRef] = "E" if position.longitude_deg >= 0 else "W"
    gps[GPS.GPSLongitude] = _sexagesimal(position.longitude_deg)
    gps[GPS.GPSAltitudeRef] = b"\x00" if position.altitude_m >= 0 else b"\x01"
    gps[GPS.GPSAltitude] = _rational(abs(position.altitude_m), 1000)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, exif=exif)
    return buffer.getvalue()

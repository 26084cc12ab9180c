"""Photos to S3 and back: `python -m tests.benchmarks.transfer [ROUNDS]`.

200 files of 400 kB of random bytes, against SeaweedFS on this machine: boto3 in one thread, file by file, and ours, in
turn; medians of ROUNDS. Beside each stands the processor time of client and server together, because here they share
the cores: no client is quicker than that time divided by their number.

No S3 is as near as this one. So there are rows with a proxy between the two that keeps back all that the server says
for 20 ms; of small objects AWS writes "roughly 100-200 milliseconds":
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
from boto3.s3.transfer import TransferConfig

from tasks.core.storage import S3Folder, open_s3_folder
from tests.conftest import REPOSITORY
from tests.support.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server, s3_server

PHOTOS, PHOTO_BYTES = 200, 400_000
DELAYS_SECONDS = (0.0, 0.02)
ONE_THREAD = TransferConfig(use_threads=False, preferred_transfer_client="classic")


@dataclass(frozen=True)
class Cost:
    """Of one transfer of all photos."""

    seconds: float
    cpu_seconds: float  # of client and server


class Clock:
    """Times work of this process and of the server."""

    def __init__(self, server: S3Server) -> None:
        self._processes = [psutil.Process(), server.process()]

    def time(self, work: Callable[[], None]) -> Cost:
        cpu, start = self._cpu_seconds(), time.perf_counter()
        work()
        return Cost(time.perf_counter() - start, self._cpu_seconds() - cpu)

    def _cpu_seconds(self) -> float:
        return sum(times.user + times.system for times in (each.cpu_times() for each in self._processes))


@contextmanager
def at_a_distance(server: S3Server, seconds: float) -> Iterator[str]:
    """The address at which the server answers so much later."""
    if seconds == 0:
        yield server.endpoint
        return
    port = server.endpoint.rpartition(":")[2]
    command = [sys.executable, "-m", "tests.benchmarks.delaying_proxy", port, str(seconds)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"http://127.0.0.1:{proxy.stdout.readline().strip()}"
        finally:
            proxy.terminate()


def transfers(endpoint: str, bucket: str, photos: Path, target: Path) -> dict[str, dict[str, Callable[[], None]]]:
    """Direction -> client -> what it does."""
    account = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": REGION}
    theirs = boto3.client("s3", endpoint_url=endpoint, **account)
    ours: S3Folder = open_s3_folder(f"s3://{bucket}/ours", client_options={"endpoint_url": endpoint, **account})
    names = sorted(path.name for path in photos.iterdir())

    def upload_one_by_one() -> None:
        for name in names:
            theirs.upload_file(str(photos / name), bucket, f"theirs/{name}", Config=ONE_THREAD)

    def download_one_by_one() -> None:
        for name in names:
            theirs.download_file(bucket, f"theirs/{name}", str(target / name), Config=ONE_THREAD)

    def download() -> None:
        ours.download([(found, target / found.name) for found in ours.objects()])

    return {
        "upload": {"boto3, one thread": upload_one_by_one, "ours": lambda: ours.upload(photos, names)},
        "download": {"boto3, one thread": download_one_by_one, "ours": download},
    }


def compare(server: S3Server, delay_seconds: float, rounds: int, folder: Path) -> None:
    """Print two rows."""
    photos, target = folder / "photos", folder / "target"
    clock = Clock(server)
    with at_a_distance(server, delay_seconds) as endpoint:
        for direction, clients in transfers(endpoint, server.new_bucket(), photos, target).items():
            costs: dict[str, list[Cost]] = {client: [] for client in clients}
            for _ in range(rounds):
                for client, work in clients.items():
                    costs[client].append(clock.time(work))
            middle = {client: statistics.median(each.seconds for each in costs[client]) for client in clients}
            said = ", ".join(
                f"{client} {middle[client]:.2f} s ({statistics.median(each.cpu_seconds for each in costs[client]):.2f})"
                for client in clients
            )
            peer, ours = middle.values()
            print(f"{1000 * delay_seconds:3.0f} ms  {direction:8}  {said}  {peer / ours:.1f}x", flush=True)


def main() -> None:
    """Print a row for each distance and direction."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{PHOTOS} photos of {PHOTO_BYTES / 1000:.0f} kB, {os.cpu_count()} cores; in brackets CPU-s of both ends")
    with tempfile.TemporaryDirectory() as temporary, s3_server(Path(temporary) / "s3") as server:
        folder = Path(temporary)
        for name in ("photos", "target"):
            (folder / name).mkdir()
        for number in range(PHOTOS):
            (folder / "photos" / f"{number:03}.jpg").write_bytes(os.urandom(PHOTO_BYTES))
        for delay_seconds in DELAYS_SECONDS:
            compare(server, delay_seconds, rounds, folder)


if __name__ == "__main__":
    main()

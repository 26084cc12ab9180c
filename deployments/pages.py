"""The pages of all runs over http, on this machine only: `python -m deployments.pages FOLDER PORT`, until SIGTERM."""

import sys
from pathlib import Path

from tasks.core.viewer.serve import open_server


def main(folder: str, port: str) -> None:
    """Serve the folder and nothing outside of it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open_server(Path(folder), int(port)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

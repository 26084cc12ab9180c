"""The pages of all runs over http, for `spaceport up`: `python -m deployments.local.pages FOLDER`.

The address is SPACEPORT_PAGES_URL, http://127.0.0.1:PORT/SECRET. It is in the environment, since every user of the
machine can list the arguments of its processes.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

from tasks.core.errors import OptionsError
from tasks.core.viewer.serve import open_server
from tasks.running.settings import Settings


def main(folder: str) -> None:
    """Serve the folder and nothing outside of it, until SIGTERM. Raises OptionsError, InputError."""
    for place in (Path(folder).parent, Path(folder)):  # the workspace, and its runs
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    address = urlsplit(Settings().pages_url or "")
    if not address.path.strip("/"):
        raise OptionsError("SPACEPORT_PAGES_URL has to say http://127.0.0.1:PORT/SECRET.")
    with open_server(Path(folder), address.port or 0, address.path.strip("/")) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])

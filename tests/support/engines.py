"""The processes that execute flow runs, found from outside."""

import psutil


def engines() -> dict[str, psutil.Process]:
    """Those of this machine, by the run's id."""
    found = {}
    for process in psutil.process_iter():
        try:
            if "prefect.engine" in process.cmdline():
                found[process.environ().get("PREFECT__FLOW_RUN_ID", "")] = process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found

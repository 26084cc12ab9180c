"""Settings of Prefect's server on this machine: the clean-up of its database, and the place of its leases.

By default Prefect's clean-up removes nothing. With these settings it removes a run that ended long enough ago, with its
task runs, states, logs and artifacts, and then the runs of its stages. A run that has not ended is kept, however old it
is. Results and stage outputs are in the workspace, which the clean-up does not touch.

Nothing here imports Prefect, which reads its settings when it is imported.
"""

from collections.abc import Mapping

EVENTS_DAYS = 3  # at most; the UI's event feed shows them
HEARTBEATS_DAYS = 1  # two a minute from every run; automations only use the last minutes
# Leases are on disk, where every server of the same home finds them. A server that starts after another was killed can
# then free the slots of concurrency limits whose processes have died. With leases in memory, Prefect's default, the
# slots would stay taken forever.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
OTHER_DATABASES = ("PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_")


def retention(keep_days: int) -> dict[str, str]:
    """Return Prefect's variables for a server that keeps ended runs for `keep_days`."""
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # and records without an owner afterwards
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"P{keep_days}D",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{min(keep_days, EVENTS_DAYS)}D",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": (
            f'{{"prefect.flow-run.heartbeat": "P{HEARTBEATS_DAYS}D"}}'
        ),
    }


def is_own_database(environment: Mapping[str, str]) -> bool:
    """Whether the server's database is the one in its home. A database that the user names may have others' runs."""
    return not any(name.startswith(OTHER_DATABASES) for name in environment)

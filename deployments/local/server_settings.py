"""Settings of Prefect's server on this machine: what it removes from its database, and where it keeps leases.

By default Prefect's clean-up removes nothing. With these settings it removes a run that ended long enough ago, with its
task runs, states, logs and artifacts, and then the runs of its stages. A run that has not ended stays, however old it
is. Results and stage outputs are in the workspace, where it does not look.

Nothing here imports Prefect, which reads its settings when it is imported.
"""

from collections.abc import Mapping

EVENTS_DAYS = 3  # at most; the UI's event feed shows them
HEARTBEATS_DAYS = 1  # two a minute of every run; automations look at the last minutes alone
# On disk, where every server of the same home finds them: one that starts after another was killed then frees the slots
# of concurrency limits whose processes have died. In memory, which is Prefect's default, they would be taken for ever.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
OTHER_DATABASES = ("PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_")


def retention(keep_days: int) -> dict[str, str]:
    """Prefect's variables for a server that keeps ended runs so many days."""
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # and what these leave without an owner
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"P{keep_days}D",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{min(keep_days, EVENTS_DAYS)}D",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": (
            f'{{"prefect.flow-run.heartbeat": "P{HEARTBEATS_DAYS}D"}}'
        ),
    }


def is_own_database(environment: Mapping[str, str]) -> bool:
    """Whether the server's database is the one in its home. One that a person names may hold other people's runs."""
    return not any(name.startswith(OTHER_DATABASES) for name in environment)

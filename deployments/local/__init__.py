"""The Prefect server of this machine, its workers and pages: what `spaceport up` starts and `down` stops."""

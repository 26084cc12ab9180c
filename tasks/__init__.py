"""The stages of a reconstruction, as thin Prefect tasks over `tasks.core`."""

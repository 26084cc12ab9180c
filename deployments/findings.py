"""The result of a check of a machine or an account."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One part: whether it is in order, and what to do if it is not."""

    part: str
    ok: bool
    says: str
    fix: str = ""
    optional: bool = False

"""What a stage has to do, in seconds of a core, and what a machine makes of it."""

from dataclasses import dataclass

from tasks.core.estimate.machine import Machine


@dataclass(frozen=True)
class Work:
    """CPU seconds on a core of the reference machine: what goes on in one thread, and what is spread over all cores."""

    serial: float = 0.0
    parallel: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.serial + other.serial, self.parallel + other.parallel)

    def __mul__(self, times: float) -> "Work":
        return Work(self.serial * times, self.parallel * times)

    @property
    def cpu_seconds(self) -> float:
        """Of one core that does it all."""
        return self.serial + self.parallel

    def seconds_on(self, machine: Machine) -> float:
        """Wall time on an otherwise idle machine (Amdahl)."""
        return (self.serial + self.parallel / machine.cores) / machine.speed

"""Running a stage: reuse its stored output, or compute it in this process or in a run of its own, with retries."""

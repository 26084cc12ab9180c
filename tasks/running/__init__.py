"""Running a stage: from the workspace, in this process or in a run of its own, and what is tried again."""

"""The five stages of a run, in their order. The words name folders, tasks, deployments and log lines."""

STAGES = ("photos", "sfm", "train", "compress", "publish")

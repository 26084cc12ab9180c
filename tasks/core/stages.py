"""The five stages of a run, in their order. The words name folders, tasks, deployments and log lines."""

STAGES = ("photos", "sfm", "train", "compress", "publish")
# Parts of a stage that have tasks, outputs and deployments of their own, and the stage that each belongs to: the plan
# of a training in cells, and the training of one cell. Where the stage runs elsewhere, so do its parts.
PARTS = {"cells": "train", "cell": "train"}


def stage_of(word: str) -> str:
    """Return the stage that a stage or a part of one belongs to."""
    return PARTS.get(word, word)

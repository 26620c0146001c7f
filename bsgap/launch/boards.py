"""Where else the rows are shown: TensorBoard, Weights & Biases."""

from pathlib import Path

from bsgap import config
from bsgap.launch.tensorboard import Board
from bsgap.launch.weights_and_biases import WandbRuns
from bsgap.training.watcher import Watcher


def boards(study: config.Study, workdir: Path) -> list[Watcher]:
    """Those that a study wants.

    Raises:
      UserError: what one needs is not installed.
    """
    wanted: list[Watcher] = [Board(workdir)] if study.tensorboard else []
    return [*wanted, WandbRuns(study.name, workdir)] if study.wandb else wanted

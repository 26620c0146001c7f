"""The runs in Weights & Biases, each a run of its own there."""

import os
import secrets
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsgap import output
from bsgap.errors import optional
from bsgap.files import replace
from bsgap.launch.tensorboard import settings, tagged
from bsgap.training.cohort import Member
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import describe


class WandbRuns(Watcher):
    """Logs rows as they come, in the project `WANDB_PROJECT` ("bsgap" by default) and the group of the study's name.

    Where wandb can't log in, for want of a key or a network, and where `WANDB_MODE` is "offline", runs are kept in
    workdir/wandb/<run>/ for `wandb sync`. A resumed run is written anew there; a server goes on with the one it has.

    Raises:
      UserError: wandb is not installed.
    """

    def __init__(self, study: str, workdir: Path) -> None:
        os.environ.setdefault('WANDB_ERROR_REPORTING', 'false')  # read when it is imported
        with optional('config.wandb: True', 'wandb', 'wandb'):
            import wandb
        self._wandb: Any = wandb
        self._study, self._folder = study, workdir / 'wandb'
        self._open: dict[str, Any] = {}
        self._logged: dict[str, float] = {}  # the last update of each run
        self._lock = threading.Lock()  # devices' threads evaluate at once
        self.mode = os.environ.get('WANDB_MODE', '')
        if not self.mode:
            try:
                self.mode = 'online' if wandb.login(prompt=False, verify=True) else 'offline'
            except wandb.Error:
                self.mode = 'offline'
        output.at_the_end.append(self._close)

    def evaluated(self, members: Sequence[Member]) -> None:
        with self._lock:
            for member in members:
                name = member.run.name
                new = [row for row in member.rows if row['update'] > self._logged.get(name, -1)]
                if not new:  # it has ended, and others of its cohort go on
                    continue
                if name not in self._open:
                    self._open[name] = self._begin(describe(member.run))
                    new = [row for row in new if row['update'] >= self._open[name].step]
                for row in new:
                    self._open[name].log(tagged(row), step=int(row['update']))
                    self._logged[name] = row['update']
                if member.diverged or member.update == member.run.updates:
                    self._open.pop(name).finish()

    def _begin(self, about: dict[str, Any]) -> Any:
        folder = self._folder / about['name']
        if self.mode != 'online':
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / 'id').exists():
            replace(folder / 'id', secrets.token_hex(8))
        return self._wandb.init(
            project=os.environ.get('WANDB_PROJECT', 'bsgap'),
            group=self._study,
            name=about['name'],
            id=(folder / 'id').read_text(encoding='utf-8'),
            resume='allow' if self.mode == 'online' else None,
            config=settings(about),
            dir=str(folder),
            mode=self.mode,
            reinit='create_new',
            settings=self._wandb.Settings(silent=True, console='off', x_save_requirements=False),
        )

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].finish()

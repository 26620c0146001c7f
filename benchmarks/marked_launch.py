"""Does what launch.py does, and appends to a file what took how long; benchmarks/startup.py starts it.

python benchmarks/marked_launch.py BEGAN FILE FLAGS…, where BEGAN is `time.monotonic()` when the command was given.
"""

import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

BEGAN, MARKS = float(sys.argv[1]), sys.argv[2]
last = BEGAN


def tell(what: str, seconds: float) -> None:
    with open(MARKS, 'a') as file:  # noqa: PTH123, since pathlib takes time to load
        file.write(f'{what}\t{seconds}\n')


def passed(what: str) -> None:
    """Tells the time since the last call."""
    global last
    now = time.monotonic()
    tell(what, now - last)
    last = now


def timed(owner: Any, name: str, what: str) -> None:
    """From now on tells how long each call of a function takes."""
    function: Callable[..., Any] = getattr(owner, name)

    def outer(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        result = function(*arguments, **named)
        tell(what, time.monotonic() - began)
        return result

    setattr(owner, name, outer)


def read_config(argv: list[str]) -> list[str]:
    """Reads the flags, then imports in parts what `launch.main` imports at once, and has training watched."""
    argv = launch.parse_flags(argv)
    passed('the config, and what its file imports')
    # Where a library loads another one, the first of the two counts for both.
    for module in ('jax', 'flax.nnx', 'optax', 'orbax.checkpoint', 'bsgap.launch.job'):
        import_module(module)
        passed(f'import {module}')
    from bsgap import data, models
    from bsgap.launch import job
    from bsgap.training import watcher, workdir

    class Clock(watcher.Watcher):
        def __init__(self) -> None:
            self.known: dict[str, float] = {}  # seconds of evaluation by run
            self.segment = 'first segment'

        def compiled(self, what: str, seconds: float) -> None:
            tell(f'compile: {what.rpartition(", ")[0]}', seconds)

        def trained(self, members: Sequence[Any], examples: int, seconds: float) -> None:
            tell(self.segment, seconds)
            self.segment = 'other segments'

        def evaluated(self, members: Sequence[Any]) -> None:
            seconds = sum(member.eval_seconds - self.known.get(member.run.name, 0.0) for member in members)
            tell('other evaluations' if self.known else 'first evaluation', seconds)
            self.known |= {member.run.name: member.eval_seconds for member in members}
            if members[0].rows[-1]['epoch'] >= 1:
                tell('total to the first epoch', time.monotonic() - BEGAN)

    timed(data, 'load', 'data')
    timed(models, 'define', 'model')
    timed(workdir, 'open_workdir', 'open the workdir')
    train = job.train

    def timed_train(settings: Any, workdir: Any, watchers: Any = (), given: Any = ()) -> None:
        train(settings, workdir, [Clock(), *watchers], given)

    job.train = timed_train
    return argv


passed('the interpreter')
import launch  # noqa: E402, since that is what is measured

passed('launch.py and what it imports')
launch.app.run(launch.main, [launch.__file__, *sys.argv[3:]], flags_parser=read_config)

"""What runs need of a device's memory, and how many fit side by side."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from bsgap.training.programs import Programs
from bsgap.training.runs import Goal, Run, boundaries


def needed(programs: Programs, goals: Sequence[Goal], limit: int = 0) -> int:
    """Bytes that these runs take while they are trained, `limit` side by side; all at once without it.

    The data, the runs' states and orders, and what the largest program needs while it runs, as XLA counts it for
    the cohorts of all runs; where they are advanced side by side, a part of a cohort needs that part of it.
    """
    whole: dict[Any, tuple[int, int]] = {}  # of a cohort: its size; the bytes a program needs besides its arguments
    for (program, batch_size), runs in _groups(goals).items():
        size = len(programs.cohorts(runs, batch_size)[0])
        segment = programs.segment_program(runs[0], batch_size, size)
        evaluation = programs.evaluation_program(runs[0], size, full=True)
        analyses = [made.memory_analysis() for made in (segment, evaluation)]
        besides = [a.temp_size_in_bytes + a.output_size_in_bytes - a.alias_size_in_bytes for a in analyses]
        whole[program, batch_size] = size, max(besides)
    most, limit = 0, limit or len(goals)
    for first in range(0, len(goals), limit):
        wave = goals[first : first + limit]
        states = [programs.abstract_state(goal.run) for goal in wave]
        leaves = jax.tree.leaves([(state, state.params) for state in states])
        resident = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + sum(4 * goal.run.n for goal in wave)
        parts = [(len(runs), *whole[key]) for key, runs in _groups(wave).items()]
        transient = (needs if programs.run_axis == 'map' else needs * runs // size for runs, size, needs in parts)
        most = max(most, resident + max(transient, default=0))
    return programs.data_bytes + most


def parallel_runs(programs: Programs, goals: Sequence[Goal]) -> int:
    """How many of these runs fit on the device side by side; all on one of unknown size."""
    if len(goals) < 2 or (room := _room(programs.device)) is None:
        return len(goals)
    limits = (-(-len(goals) // waves) for waves in range(1, len(goals)))
    return next((limit for limit in limits if needed(programs, goals, limit) <= room), 1)


def _groups(goals: Sequence[Goal]) -> dict[tuple[Any, int], list[Run]]:
    """The most runs that could form a cohort on their way to their goals, for each program and batch size."""
    largest: dict[tuple[Any, int], list[Run]] = {}
    for example in (0, *boundaries(goals)):
        alike: dict[tuple[Any, int], list[Run]] = {}
        for goal in goals:
            if example < goal.last_example:
                span = next(span for span in goal.run.spans if example < span.last_example)
                alike.setdefault((goal.run.program, span.stage.batch_size), []).append(goal.run)
        for key, runs in alike.items():
            largest[key] = max(largest.get(key, []), runs, key=len)
    return largest


def _room(device: jax.Device) -> int | None:
    """The bytes that may be used on a device; None if that is unknown."""
    if limit := (device.memory_stats() or {}).get('bytes_limit'):
        return int(0.8 * limit)
    if device.platform != 'cpu':
        return None
    # Half of what this process may have, as it holds the dataset and what is being saved; others are not known of.
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return min([total, *_limits()]) // 2 // len(jax.local_devices())


def _limits() -> Iterator[int]:
    """What this process's control group, and those around it, may have of the memory (Linux, version 2)."""
    top, group = Path('/sys/fs/cgroup'), ''
    with contextlib.suppress(OSError):
        group = Path('/proc/self/cgroup').read_text().partition('0::')[2].strip().strip('/')
    for folder in (top / group, *(top / group).parents):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            yield int((folder / 'memory.max').read_text())

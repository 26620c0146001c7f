"""What runs need of a device's memory, and how many fit side by side."""

import contextlib
import math
import os
import re
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bsgap.config import Study
from bsgap.errors import UserError
from bsgap.training.programs import Programs
from bsgap.training.runs import Run, boundaries


def needed(programs: Programs, runs: Sequence[Run], limit: int = 0) -> int:
    """Bytes that these runs take while they are trained, `limit` side by side, or all: the data, their states and
    orders, and the largest program's scratch memory. XLA tells that for a whole cohort; a smaller one is taken to need
    its share of it."""
    whole: dict[Any, tuple[int, int]] = {}  # of a cohort: its size; the bytes a program needs besides its arguments
    for (program, batch_size), alike in _groups(runs).items():
        run, size = alike[0], len(programs.cohorts(alike, batch_size)[0])
        made = programs.segment_program(run, batch_size, size), programs.evaluation_program(run, size, full=True)
        analyses = [each.memory_analysis() for each in made]
        besides = [a.temp_size_in_bytes + a.output_size_in_bytes - a.alias_size_in_bytes for a in analyses]
        whole[program, batch_size] = size, max(besides)
    most, limit = 0, limit or len(runs)
    for first in range(0, len(runs), limit):
        wave = runs[first : first + limit]
        parts = [(len(alike), *whole[key]) for key, alike in _groups(wave).items()]
        transient = (needs if programs.run_axis == 'map' else needs * n // size for n, size, needs in parts)
        most = max(most, _resident(programs, wave) + max(transient, default=0))
    return programs.data_bytes + most


class Alone(NamedTuple):
    """What a run needs that is alone on the device, with the batch size with which it begins."""

    seconds: list[float]  # of an update, measured several times
    bytes: int
    parts: int  # in which a batch is computed


def measured_alone(programs: Programs, runs: Sequence[Run]) -> list[Alone]:
    """Of each of these runs; their times are measured in turn."""
    for run in runs:
        parallel_runs(programs, [run])
    parts = [programs.parts(run.recipe, run.span(0).stage.batch_size)[0] for run in runs]
    return list(map(Alone, programs.times_in_turn(runs), (needed(programs, [run]) for run in runs), parts))


def _resident(programs: Programs, runs: Sequence[Run]) -> int:
    """What runs take besides the data while no program runs: each its state, the weights at its start, an order."""
    states = [programs.abstract_state(run) for run in runs]
    leaves = jax.tree.leaves([(state, state.params) for state in states])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + sum(4 * run.n for run in runs)


def parallel_runs(programs: Programs, runs: Sequence[Run], asked: int = 0) -> int:
    """How many of these runs fit on the device side by side; all on one of unknown size, and as many as were asked for.
    Where not one does, batches are computed in more parts, half as large again and again. Raises UserError if one alone
    is larger than the device's memory."""
    whole, room = _memory(programs.device)
    largest = max(runs, key=lambda run: _resident(programs, [run]), default=None)
    if largest and programs.data_bytes + _resident(programs, [largest]) > whole:
        raise _alone(programs, largest)
    if not runs or math.isinf(room):
        return asked or len(runs)
    limits = [asked] if asked else [-(-len(runs) // waves) for waves in range(1, len(runs) + 1)]
    tried = runs[: asked or None]
    while not (fitting := [limit for limit in limits if needed(programs, tried, limit) <= room]) and programs.halve():
        pass
    return asked or max(fitting, default=1)


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of the host, ran out."""
    return isinstance(error, MemoryError) or bool(re.search('RESOURCE_EXHAUSTED|[Oo]ut of memory', str(error)))


def too_small(study: Study, programs: Programs, runs: Sequence[Run]) -> UserError:
    """What to say when these runs were trained side by side and memory ran out."""
    if len(runs) < 2:
        return _alone(programs, runs[0])
    fit, gib = parallel_runs(programs, runs), needed(programs, runs) / 2**30
    most = fit if fit < len(runs) else len(runs) // 2
    full = f'{study.max_parallel_runs or "unset"} does not do, the memory of {programs.device} is full'
    needs = f'{len(runs)} runs side by side need {gib:.2g} GiB'
    return UserError(f'config.max_parallel_runs: {full}: {needs}; it must be at most {most}')


def _alone(programs: Programs, run: Run) -> UserError:
    needs = (programs.data_bytes + _resident(programs, [run])) / 2**30
    return UserError(
        f'config.model: {run.recipe.architecture.text} does not do (recipe {run.recipe.name}), the memory of'
        f' {programs.device} is full: one run needs more than {needs:.2g} GiB, data included; make the model (hidden,'
        ' channels), max_physical_batch or the dataset smaller'
    )


def _groups(runs: Sequence[Run]) -> dict[tuple[Any, int], list[Run]]:
    """The most runs that could form a cohort on their way, for each program and batch size."""
    largest: dict[tuple[Any, int], list[Run]] = {}
    for example in (0, *boundaries(runs)):
        alike: dict[tuple[Any, int], list[Run]] = {}
        for run in runs:
            if span := next((span for span in run.spans if example < span.last_example), None):
                alike.setdefault((run.program, span.stage.batch_size), []).append(run)
        for key, group in alike.items():
            largest[key] = max(largest.get(key, []), group, key=len)
    return largest


def _memory(device: jax.Device) -> tuple[float, float]:
    """The bytes that a device has, and those that may be used; infinite if unknown."""
    if limit := (device.memory_stats() or {}).get('bytes_limit'):
        return limit, 0.8 * limit
    if device.platform != 'cpu':
        return math.inf, math.inf
    # Half of what this process may have, as it holds the dataset and what is being saved; others are not known of.
    whole = min(_limits()) / len(jax.local_devices())
    return whole, whole / 2


def _limits() -> Iterator[int]:
    """The memory of this machine, and what this process, its control group (Linux, version 2), and those around it may
    have of it."""
    yield os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        yield limit
    top, group = Path('/sys/fs/cgroup'), ''
    with contextlib.suppress(OSError):
        group = Path('/proc/self/cgroup').read_text().partition('0::')[2].strip().strip('/')
    for folder in (top / group, *(top / group).parents):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            yield int((folder / 'memory.max').read_text())

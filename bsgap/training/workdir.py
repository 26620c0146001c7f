"""A workdir: what its files are, and what they must agree with.

workdir/study.json                  the resolved config, the training sets, versions, devices, git revision
workdir/results.csv                 one row a run
workdir/runs/<run>/run.json         the recipe and the seed
workdir/runs/<run>/metrics.csv      one row an evaluation
workdir/runs/<run>/checkpoints/     Orbax
workdir/lock                        held by the launch that trains there
workdir/figures/, workdir/report.html
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from bsgap import config
from bsgap.config import fields, schedule
from bsgap.config.study import recipe_settings
from bsgap.data import Dataset
from bsgap.errors import UserError
from bsgap.files import read_json, write_json
from bsgap.models import source_of
from bsgap.training.rows import read_records
from bsgap.training.runs import Run

# What of JAX changes numbers, by more than their rounding.
FLAGS = (
    *('jax_default_prng_impl', 'jax_threefry_partitionable', 'jax_random_seed_offset', 'jax_high_dynamic_range_gumbel'),
    *('jax_numpy_dtype_promotion', 'jax_allow_f16_reductions', 'jax_disable_most_optimizations', 'jax_disable_jit'),
)
VARIABLES = ('XLA_FLAGS', 'NVIDIA_TF32_OVERRIDE')
HARMLESS = '--xla_(force_host_platform_device_count|dump|gpu_cuda_data_dir|.*autotune.*(cache|dump|load))'  # of these
PACKAGES = ('bsgap', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def unusable(workdir: Path, error: OSError) -> UserError:
    """What to say when a workdir can't be written or read, or what JAX was told to use besides."""
    elsewhere = error.filename and not Path(str(error.filename)).is_relative_to(workdir)
    what = error.filename if elsewhere else f'--workdir: {workdir}'
    return UserError(f'{what} cannot be used: {error.strerror or error}')


def open_workdir(
    workdir: Path, study: config.Study, planned: Iterable[Run], about: Mapping[str, Any], write: bool = True
) -> None:
    """Checks that what a workdir holds agrees with the study, and with what study.json is to say `about` this launch;
    writes each run.json, and study.json if it is to `write`. Raises UserError, also if the workdir can't be written."""
    try:
        earlier = check_workdir(workdir, study, about)
        add_runs(workdir, planned)
        if write:
            before = (earlier or [{}])[-1]  # runs that this study has not need what it says
            sets = about['training_sets']
            sets = sets + [other for other in before.get('training_sets', []) if other not in sets]
            depends = _by_place(before.get('depends_on', [])) | _by_place(about['depends_on'])
            added = {'training_sets': sets, 'depends_on': list(depends.values()), 'earlier_launches': earlier}
            write_json(workdir / 'study.json', {'config': config.settings(study), **about, **added})
    except OSError as error:
        raise unusable(workdir, error) from error


def check_workdir(workdir: Path, study: config.Study, about: Mapping[str, Any]) -> list[Any]:
    """What study.json says of the launches until now; raises UserError if it says something else than the study, or
    than `about` this launch."""
    path = workdir / 'study.json'
    if path.exists():
        before = read_json(path, 'config', 'earlier_launches')
        usual = json.loads(json.dumps({key: field.default for key, field in fields.STUDY_FIELDS.items()}))
        old = usual | before.pop('config')  # of a bsgap that had fewer fields
        for field, value in config.settings(study).items():
            if field not in fields.FREE_FIELDS and value != old.get(field):
                raise _contradiction(f'config.{field}:', value, old.get(field), workdir)
        records = read_records(workdir)
        trained = [record.about['fields'] for record in records if record.rows and record.rows[-1]['update']]
        known = _by_place(before.get('depends_on', []))
        for place, entry in _by_place(about['depends_on']).items():
            other = known.get(place, entry)['value']
            if entry['value'] != other and any(entry['of'].items() <= run.items() for run in trained):
                raise _contradiction(entry['what'], entry['value'], other, workdir)
        return [*before.pop('earlier_launches'), before]
    if any(workdir.glob('runs/*/metrics.csv')):
        raise UserError(f'--workdir: {workdir} has runs but no study.json, which says how; use another')
    return []


def depends_on(study: config.Study, datasets: Mapping[config.TrainingSet, Dataset]) -> dict[str, Any]:
    """What study.json says of the training sets, and of all else that results depend on besides the config: what it is,
    its value, and the fields of the runs that depend on it. The user's own modules must have been imported."""

    def entry(what: str, value: Any, **fields_of_runs: Any) -> dict[str, Any]:
        return {'what': what, 'value': value, 'of': fields_of_runs}

    found = [entry(f'{flag.upper()}:', jax.config.values[flag]) for flag in FLAGS if flag in jax.config.values]
    for variable in VARIABLES:
        told = [part for part in os.environ.get(variable, '').split() if not re.match(HARMLESS, part)]
        found.append(entry(f'{variable}:', ' '.join(sorted(told))))
    for training_set, dataset in datasets.items():
        found.append(entry('config.dataset: its content, SHA-256', dataset.sha256, **training_set._asdict()))
    for model in dict.fromkeys(recipe.architecture.model for recipe in study.recipes):
        if source := source_of(model):
            found.append(entry(f'config.model: the source of {model}, SHA-256', source, model=model))
    if source := source_of(study.data.task):
        found.append(entry(f'config.task: the source of {study.data.task}, SHA-256', source))
    sets = [_describe_data(training_set, dataset) for training_set, dataset in datasets.items()]
    return json.loads(json.dumps({'training_sets': sets, 'depends_on': found}, default=str))


def _by_place(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(entry['what'], json.dumps(entry['of'])): entry for entry in entries}


def _contradiction(what: str, value: Any, other: Any, workdir: Path) -> UserError:
    value, other = ('unset' if each == '' else each for each in (value, other))
    trained = f'with which runs in {workdir} were trained'
    return UserError(f'{what} {value} contradicts {other}, {trained}; use the same, or another --workdir')


def add_runs(workdir: Path, planned: Iterable[Run]) -> None:
    """Writes the run.json of those runs that have none, and of those that are to be trained further than before;
    nothing if one was trained with other settings, which raises UserError."""
    for run, is_longer in compare_runs(workdir, planned).items():
        folder = run_folder(workdir, run.name)
        folder.mkdir(parents=True, exist_ok=True)
        if is_longer:  # what was measured of the weights with which it ended before
            (folder / 'measurements.json').unlink(missing_ok=True)
            (workdir / 'lines.json').unlink(missing_ok=True)
        write_json(folder / 'run.json', describe(run))


def compare_runs(workdir: Path, planned: Iterable[Run]) -> dict[Run, bool]:
    """Of these runs, those whose run.json is missing or that of a shorter run, and whether it is the latter; raises
    UserError if one describes another run."""
    found = dict[Run, bool]()
    for run in planned:
        path = run_folder(workdir, run.name) / 'run.json'
        if not path.exists():
            found[run] = False
        elif (old := read_json(path, 'fields', 'stages', 'n', 'updates')) != (new := describe(run)):
            found[run] = is_longer = _is_start(old, run)
            use = f'in {path}; use the same, another name for the recipe, or another --workdir'
            for field, value in new['fields'].items():
                other = old['fields'].get(field)
                if value != other and not (is_longer and field in schedule.UNITS):
                    raise UserError(f'config.{field}: {value} contradicts {other} {use}')
            if not is_longer:
                what = 'its stages, or the number of examples, contradict those'
                raise UserError(f'config.recipes.{new["recipe"]}: {what} {use}')
    return found


def _is_start(old: Mapping[str, Any], run: Run) -> bool:
    """Whether what a run.json describes is the start of a run: the same updates, and fewer."""
    if old['n'] != run.n or old['updates'] >= run.updates:
        return False
    for span in schedule.place(tuple(schedule.Stage(**stage) for stage in old['stages']), run.n):
        now = run.span(span.first_update)
        same = (now.first_update, now.first_example) == (span.first_update, span.first_example)
        to_its_end = span.last_update <= now.last_update and run.example(span.last_update) == span.last_example
        constant = now.stage.rule == 'constant' or span.last_update == now.last_update
        stage = dataclasses.replace(span.stage, length=now.stage.length, unit=now.stage.unit)
        if not (same and to_its_end and constant and stage == now.stage):
            return False
    return True


def describe(run: Run) -> dict[str, Any]:
    """What run.json says."""
    about = {'name': run.name, 'recipe': run.recipe.name, 'seed': run.seed, 'n': run.n}
    about |= {'updates': run.updates, 'examples': run.examples, **recipe_settings(run.recipe)}
    return json.loads(json.dumps(about))


def run_folder(workdir: Path, name: str) -> Path:
    return workdir / 'runs' / name


def saved_updates(workdir: Path, name: str) -> list[int]:
    """The updates at which a run was saved, ascending."""
    folders = run_folder(workdir, name).glob('checkpoints/[0-9]*')
    return sorted(int(path.name) for path in folders if path.name.isdigit())


def environment() -> dict[str, Any]:
    """What a result depends on besides the config."""
    return {
        'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'command': ' '.join(sys.argv),
        'python': platform.python_version(),
        'versions': {package: importlib.metadata.version(package) for package in PACKAGES},
        'devices': [device.device_kind for device in jax.devices()],
        'platform': jax.default_backend(),
        'machine': f'{platform.machine()}, {os.cpu_count()} CPU cores',
        'git': _git_revision(),
    }


def _describe_data(training_set: config.TrainingSet, dataset: Dataset) -> dict[str, Any]:
    """What study.json says of a training set: all that a trained model needs to be used without it."""
    examples_N = dataset.train.examples_N
    return {
        **training_set._asdict(),
        'examples': dataset.n,
        'shape': examples_N.shape[1:],
        'dtype': str(examples_N.dtype),
        'outputs': dataset.outputs,
        'label_shape': dataset.label_shape,
        'mean': dataset.mean_C.tolist(),
        'std': dataset.std_C.tolist(),
        'target_mean': None if dataset.target_mean_K is None else dataset.target_mean_K.tolist(),
        'target_std': None if dataset.target_std_K is None else dataset.target_std_K.tolist(),
        'sizes': {name: len(split.labels_N) for name, split in dataset.splits.items()},
        'baseline': dataset.baseline,
    }


def _git_revision() -> str | None:
    """The revision of the checkout that bsgap runs from, with -dirty if it was changed; None outside a checkout."""
    command = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

"""What a study wants measured at the weights that its runs ended with: `config.measurements` and `config.lines`.

workdir/runs/<run>/measurements.json   numbers by name, some for each measurement
workdir/lines.json                     under `lines` a list, one entry for each pair of runs
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from bsgap import config
from bsgap.config import Study
from bsgap.data import Split
from bsgap.files import read_json, write_json
from bsgap.measure import landscape
from bsgap.models import Model
from bsgap.training import checkpoint, optimizer, step
from bsgap.training.losses import of
from bsgap.training.programs import Programs
from bsgap.training.rows import read_records
from bsgap.training.runs import Run
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import run_folder

BOXES = (1e-3, 5e-4)  # of sharpness, Keskar et al. 2017, table 3
ALPHAS = tuple(np.linspace(-1, 2, 25).tolist())  # of a line, Keskar et al. 2017, figure 3
GRADIENT_BATCHES = (1, 4, 16, 64, 256, 1024)
GRADIENT_EXAMPLES = 1024  # a trial, Shen 2018
GRADIENT_TRIALS = 16
GRADIENT_RATE = 0.01  # between two batches where the weights move, Shen 2018

Losses = dict[str, Any]  # functions of the weights


def measure(
    study: Study,
    programs: Programs,
    runs: Sequence[Run],
    workdir: Path,
    watcher: Watcher,
    check: Callable[[], None] = lambda: None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Measures what is missing of those of `runs` that are done; to be called while `workdir` is locked.

    `check` raises when the launch shall end. `share` is this process's index and how many there are: each measures some
    of the runs, and the first one the lines. UserError if what `workdir` holds can't be used.
    """
    records = {record.name: record for record in read_records(workdir)}
    done = [run for run in runs if run.name in records and records[run.name].status == 'done']
    # The same objects for the same model, so that they are compiled once.
    losses_of = functools.cache(lambda model: losses(model, study.data.task))

    def ended(run: Run) -> tuple[Any, Any] | None:
        """The parameters and the model's state with which a run ended; None, with a warning, if they can't be read."""
        saved = checkpoint.Checkpoints(workdir, run.name)
        try:
            state = saved.load(run.updates, programs.abstract_state(run)).state
            return programs.put((optimizer.in_float32(state.params), state.model_state))
        except checkpoint.DamagedError as error:
            watcher.warned(f'{run.name} cannot be measured: its last checkpoint is damaged ({error})')
            return None

    index, count = share
    for run in done[index::count]:
        known = records[run.name].measured
        missing = [name for name in study.measurements if not any(key.startswith(name) for key in known)]
        if missing and (at_end := ended(run)):
            for name in missing:
                check()
                began = time.monotonic()
                of_model = losses_of(programs.model(run.recipe))
                known |= MEASUREMENTS[name](of_model, programs.splits(run)['train'], run, *at_end)
                write_json(run_folder(workdir, run.name) / 'measurements.json', known)
                watcher.noted(f'measured {name} of {run.name} in {time.monotonic() - began:.1f} s')
    if index:
        return
    path = workdir / 'lines.json'
    lines = read_json(path, 'lines')['lines'] if path.exists() else []
    have = {(line['first'], line['second'], line['seed']) for line in lines}
    by_name = {(run.recipe.name, run.seed): run for run in done}
    for (first, second), seed in itertools.product(study.lines, sorted({run.seed for run in done})):
        ends = [by_name[name, seed] for name in (first, second) if (name, seed) in by_name]
        if (first, second, seed) in have or len(ends) < 2:
            continue
        states = [state for run in ends if (state := ended(run))]
        if len(states) == 2:
            splits = {name: programs.splits(ends[0])[name] for name in ('train', 'test')}
            of_weights = Partial(losses_of(programs.model(ends[0].recipe))['line'], states[0][1], splits)
            found = landscape.line(of_weights, states[0][0], states[1][0], jnp.float32(ALPHAS))
            values = {name: np.asarray(column).tolist() for name, column in found.items()}
            lines.append({'first': first, 'second': second, 'seed': seed, 'alpha': list(ALPHAS), **values})
            write_json(path, {'lines': lines})
            watcher.noted(f'measured the line from {first} to {second}, seed {seed}')


def losses(of_run: Model, task: str = 'classification') -> Losses:
    """A model's losses as functions of the weights: over a split, over some examples, and for `landscape.line`."""
    of_task, score = of(task), config.task(task).score

    def whole(model_state: Any, split: Split, params: Any) -> jax.Array:
        return step.evaluate(of_run, split, params, model_state, measure=of_task).loss

    def batch(model_state: Any, split: Split, params: Any, index_B: jax.Array) -> jax.Array:
        outputs_B = of_run.predict(params, model_state, split.examples_N[index_B])
        return of_task(outputs_B, split.labels_N[index_B], 0.0, 1.0).loss_B.mean()

    def with_own_statistics(params: Any, model_state: Any, examples_B: jax.Array) -> jax.Array:
        mask_B = jnp.ones(len(examples_B), bool)
        return of_run.apply(params, model_state, examples_B, mask_B, jax.random.key(0))[0]

    def line(model_state: Any, splits: dict[str, Split], params: Any) -> dict[str, jax.Array]:
        # Between two solutions batch normalization has no running statistics: it takes those of each part of a split.
        values = {}
        for name, split in splits.items():
            own = of_run._replace(predict=with_own_statistics)
            found = step.evaluate(own, split, params, model_state, measure=of_task)
            values[f'{name}_loss'] = found.loss
            values[f'{name}_{score}'] = found.score_N.mean()
        return values

    return {'whole': whole, 'batch': batch, 'line': line}


def sharpness(of: Losses, train: Split, run: Run, params: Any, model_state: Any) -> dict[str, float]:
    """Keskar's sharpness of the training loss in per cent, for each of BOXES."""
    loss = Partial(of['whole'], model_state, train)
    return {f'sharpness_{box:g}': landscape.sharpness(loss, params, box) for box in BOXES}


def top_eigenvalue(of: Losses, train: Split, run: Run, params: Any, model_state: Any) -> dict[str, float]:
    """The largest eigenvalue of the training loss's Hessian."""
    loss = Partial(of['whole'], model_state, train)
    return {'top_eigenvalue': float(landscape.top_eigenvalue(loss, params, jax.random.key(run.seed)))}


def lowest_loss(of: Losses, train: Split, run: Run, params: Any, model_state: Any) -> dict[str, float]:
    """The lowest training loss that L-BFGS finds from the weights with which the run ended."""
    return {'lowest_loss': landscape.lowest(Partial(of['whole'], model_state, train), params)}


def gradient_norm(of: Losses, train: Split, run: Run, params: Any, model_state: Any) -> dict[str, float]:
    """Norms of gradients of the last layer by batch size: their means and standard deviations over trials.

    GRADIENT_TRIALS times over GRADIENT_EXAMPLES examples, the same for each batch size; each time from the run's
    weights. `each`: of every mini-batch's gradient, the weights frozen. `mean`: of the mean of a trial's gradients,
    with a step of SGD after each batch (Shen 2018; without, it would be the same for all batch sizes). `growth`
    is the largest batch's value over the smallest's, of the mean and of the standard deviation over the mean.
    """
    loss = Partial(of['batch'], model_state, train)
    rng, size = np.random.default_rng(run.seed), min(GRADIENT_EXAMPLES, run.n)
    trials = [jnp.asarray(rng.permutation(run.n)[:size], jnp.int32) for _ in range(GRADIENT_TRIALS)]
    found: dict[str, float] = {}
    for which, (kind, rate) in enumerate((('gradient_norm_each', 0.0), ('gradient_norm_mean', GRADIENT_RATE))):
        means, spreads = [], []
        for batch_size in (each for each in GRADIENT_BATCHES if each <= size):
            norms_of = functools.partial(landscape.gradient_norms, loss, params)
            norms = np.hstack([norms_of(order_N, batch_size, rate, last_layer)[which] for order_N in trials])
            mean, deviation = float(norms.mean()), float(norms.std(ddof=1))
            found |= {f'{kind}_bs{batch_size}': mean, f'{kind}_sd_bs{batch_size}': deviation}
            means.append(mean)
            spreads.append(deviation / mean)
        found |= {f'{kind}_growth': means[-1] / means[0], f'{kind}_spread_growth': spreads[-1] / spreads[0]}
    return found


def last_layer(grads: Any) -> Any:
    """The weights of the last dense layer of an MLP or a CNN; everything of a model of the user's own."""
    layers = grads.get('head', grads).get('layers')
    return layers[max(layers)]['kernel'] if layers else grads


MEASUREMENTS = {made.__name__: made for made in (sharpness, top_eigenvalue, lowest_loss, gradient_norm)}

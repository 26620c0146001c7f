"""What a study wants measured at the weights that its runs ended with: `config.measurements` and `config.lines`.

workdir/runs/<run>/measurements.json   numbers by name, some for each measurement
workdir/lines.json                     under `lines` a list, one entry for each pair of runs
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from ml_collections import ConfigDict

from bsgap import checkpoint, cluster, config, data, landscape, metrics, model, noise_scale, progress, search, step
from bsgap import study as study_lib
from bsgap.programs import Programs

BOXES = (1e-3, 5e-4)  # of sharpness, Keskar et al. 2017, table 3
ALPHAS = tuple(np.linspace(-1, 2, 25).tolist())  # of a line, Keskar et al. 2017, figure 3
GRADIENT_BATCHES = (1, 4, 16, 64, 256, 1024)
GRADIENT_EXAMPLES = 1024  # a trial, Shen 2018
GRADIENT_TRIALS = 16
GRADIENT_RATE = 0.01  # between two batches where the weights move, Shen 2018
NOISE_EXAMPLES = 4096  # whose gradients are taken one by one
NOISE_CHUNK = 32  # gradients at a time; more are no faster on a CPU
NOISE_NUMBERS = 2**26  # in these gradients at most: 256 MiB

Ended = tuple[Any, Any]  # the parameters and the model's state at the end of a run
Losses = dict[str, Any]  # functions of the weights


def measure(settings: ConfigDict, workdir: str | Path) -> None:
    """Measures what is missing in `workdir`, whose runs have been trained; each process of a launch some of the runs.

    Raises:
      UserError: `settings`, or what `workdir` holds, can't be used.
    """
    workdir = Path(workdir)
    study = config.resolve(settings)
    if not study.measurements and not study.lines:
        return
    datasets = data.load(study.data, (recipe.variant for recipe in study.recipes))
    runs = study_lib.runs(study, {variant: dataset.n for variant, dataset in datasets.items()})
    if study.search:
        runs = tuple(search.trunks(study, study.search, runs[0].n, workdir))
    records = {record.about['name']: record for record in metrics.read_runs(workdir)}
    done = [run for run in runs if run.name in records and records[run.name].status == 'done']
    view = progress.View(study, datasets, workdir)
    with jax.default_matmul_precision(study.precision), view, study_lib.locked(workdir):
        measuring = _Measuring(Programs(study, datasets, view, jax.local_devices()[0]), workdir, view)
        try:
            for run in done[cluster.index() :: cluster.count()]:
                measuring.run(run, study.measurements, records[run.name].measured)
            if not cluster.index():
                measuring.lines(study.lines, done)
        except OSError as error:
            raise study_lib.unusable(workdir, error) from error


class _Measuring:
    def __init__(self, programs: Programs, workdir: Path, view: progress.View) -> None:
        self.programs, self.workdir, self.view = programs, workdir, view
        self._losses: dict[Any, Losses] = {}

    def run(self, run: study_lib.Run, wanted: Sequence[str], known: dict[str, float]) -> None:
        """Measures one run, and writes each measurement as it is made."""
        folder = study_lib.run_folder(self.workdir, run.name)
        missing = [name for name in wanted if not any(key.startswith(name) for key in known)]
        if not missing or (ended := self._ended(run)) is None:
            return
        for name in missing:
            cluster.stop_if_told()
            began = time.monotonic()
            known |= MEASUREMENTS[name](self._of(run), self.programs.splits(run)['train'], run, *ended)
            study_lib.write_json(folder / 'measurements.json', known)
            self.view.say(f'measured {name} of {run.name} in {time.monotonic() - began:.1f} s')

    def lines(self, pairs: Sequence[tuple[str, str]], runs: Sequence[study_lib.Run]) -> None:
        """Measures the lines between runs of the same seed."""
        path = self.workdir / 'lines.json'
        known = study_lib.read_json(path, 'lines')['lines'] if path.exists() else []
        have = {(line['first'], line['second'], line['seed']) for line in known}
        by_name = {(run.recipe.name, run.seed): run for run in runs}
        for first, second in pairs:
            for seed in sorted({run.seed for run in runs}):
                ends = [by_name[name, seed] for name in (first, second) if (name, seed) in by_name]
                if (first, second, seed) in have or len(ends) < 2:
                    continue
                states = [state for run in ends if (state := self._ended(run)) is not None]
                if len(states) == 2:
                    line = self._line(ends[0], *states)
                    known.append({'first': first, 'second': second, 'seed': seed, **line})
                    study_lib.write_json(path, {'lines': known})
                    self.view.say(f'measured the line from {first} to {second}, seed {seed}')

    def _line(self, run: Any, first: Ended, second: Ended) -> dict[str, list[float]]:
        splits = {name: self.programs.splits(run)[name] for name in ('train', 'test')}
        of_weights = Partial(self._of(run)['line'], first[1], splits)
        values = landscape.line(of_weights, first[0], second[0], jnp.float32(ALPHAS))
        return {'alpha': list(ALPHAS), **{name: np.asarray(column).tolist() for name, column in values.items()}}

    def _of(self, run: study_lib.Run) -> Losses:
        """The functions of a run's model; the same objects for the same model, so that they are compiled once."""
        made = self.programs.model(run.recipe)
        return self._losses.setdefault(made, losses(made))

    def _ended(self, run: study_lib.Run) -> Ended | None:
        """The weights with which a run ended; None, with a warning, if they can't be read."""
        checkpoints = checkpoint.Checkpoints(study_lib.run_folder(self.workdir, run.name) / 'checkpoints')
        try:
            state = checkpoints.load(run.updates, self.programs.abstract_state(run)).state
            return self.programs.put((state.params, state.model_state))
        except checkpoint.DamagedError as error:
            self.view.warn(f'{run.name} cannot be measured: its last checkpoint is damaged ({error})')
            return None
        finally:
            checkpoints.close()


def losses(of_run: model.Model) -> Losses:
    """A model's losses as functions of the weights, which come last."""

    def whole(model_state: Any, split: data.Split, params: Any) -> jax.Array:
        """Over a split, in evaluation mode."""
        return step.evaluate(of_run, split, params, model_state).loss

    def batch(model_state: Any, split: data.Split, params: Any, index_B: jax.Array) -> jax.Array:
        """Over some examples, in evaluation mode."""
        logits_BxK = of_run.predict(params, model_state, split.images_NxHxWxC[index_B])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BxK, split.labels_N[index_B]).mean()

    def with_own_statistics(params: Any, model_state: Any, images_BxHxWxC: jax.Array) -> jax.Array:
        mask_B = jnp.ones(len(images_BxHxWxC), bool)
        return of_run.apply(params, model_state, images_BxHxWxC, mask_B, jax.random.key(0))[0]

    def line(model_state: Any, splits: dict[str, data.Split], params: Any) -> dict[str, jax.Array]:
        """Loss and accuracy on each split. Between two solutions batch normalization has no running statistics, so it
        takes those of each part of the split."""
        values = {}
        for name, split in splits.items():
            found = step.evaluate(of_run._replace(predict=with_own_statistics), split, params, model_state)
            values[f'{name}_loss'] = found.loss
            values[f'{name}_accuracy'] = found.correct / len(split.labels_N)
        return values

    return {'whole': whole, 'batch': batch, 'line': line}


def sharpness(of: Losses, train: data.Split, run: study_lib.Run, params: Any, model_state: Any) -> dict[str, float]:
    """Keskar's sharpness of the training loss in per cent, for each of BOXES."""
    loss = Partial(of['whole'], model_state, train)
    return {f'sharpness_{box:g}': landscape.sharpness(loss, params, box) for box in BOXES}


def top_eigenvalue(
    of: Losses, train: data.Split, run: study_lib.Run, params: Any, model_state: Any
) -> dict[str, float]:
    """The largest eigenvalue of the training loss's Hessian."""
    loss = Partial(of['whole'], model_state, train)
    return {'top_eigenvalue': float(landscape.top_eigenvalue(loss, params, jax.random.key(run.seed)))}


def gradient_norm(of: Losses, train: data.Split, run: study_lib.Run, params: Any, model_state: Any) -> dict[str, float]:
    """Mean and standard deviation of the norms of mini-batch gradients of the last layer, by batch size.

    GRADIENT_TRIALS times over GRADIENT_EXAMPLES examples, the same for each batch size; each trial begins with the
    run's weights, which stay as they are (`frozen`) or take a step of SGD after each batch (`moving`, as in Shen 2018).
    `growth` is the largest batch's value over the smallest's, of the mean and of the standard deviation over the mean.
    """
    loss = Partial(of['batch'], model_state, train)
    shuffled_N = np.random.default_rng(run.seed).permutation(run.n).astype(np.int32)
    size = min(GRADIENT_EXAMPLES, run.n)
    trials = [jnp.asarray(np.resize(np.roll(shuffled_N, -size * t), size)) for t in range(GRADIENT_TRIALS)]
    batches = [batch_size for batch_size in GRADIENT_BATCHES if batch_size <= size]
    found = {}
    for kind, rate in (('frozen', 0.0), ('moving', GRADIENT_RATE)):
        spreads = []
        for batch_size in batches:
            norms = np.concatenate(
                [landscape.gradient_norms(loss, params, order_N, batch_size, rate, last_layer) for order_N in trials]
            )
            found[f'gradient_norm_{kind}_bs{batch_size}'] = float(norms.mean())
            found[f'gradient_norm_{kind}_sd_bs{batch_size}'] = float(norms.std(ddof=1))
            spreads.append(float(norms.std(ddof=1) / norms.mean()))
        ends = [found[f'gradient_norm_{kind}_bs{batch_size}'] for batch_size in (batches[0], batches[-1])]
        found[f'gradient_norm_{kind}_growth'] = ends[1] / ends[0]
        found[f'gradient_norm_{kind}_spread_growth'] = spreads[-1] / spreads[0]
    return found


def gradient_noise(
    of: Losses, train: data.Split, run: study_lib.Run, params: Any, model_state: Any
) -> dict[str, float]:
    """The simple noise scale of the training examples with its 95 % interval, ‖G‖² and tr Σ (`noise_scale.exact`).

    tr Σ is taken from NOISE_EXAMPLES of the examples, which the run's seed chooses.
    """
    order_N = np.random.default_rng(run.seed).permutation(run.n).astype(np.int32)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    chunk = max(1, min(NOISE_CHUNK, NOISE_NUMBERS // parameters))
    found = noise_scale.exact(Partial(of['batch'], model_state, train), params, order_N, NOISE_EXAMPLES, chunk)
    return {
        'noise_scale': found.noise_scale.value,
        'noise_scale_low': found.noise_scale.low,
        'noise_scale_high': found.noise_scale.high,
        'noise_scale_square': found.gradient_square,
        'noise_scale_variance': found.gradient_variance,
    }


def last_layer(grads: Any) -> Any:
    """The weights of the last dense layer of an MLP or a CNN; everything of a model of the user's own."""
    layers = grads.get('head', grads).get('layers')
    return layers[max(layers)]['kernel'] if layers else grads


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    'sharpness': sharpness,
    'top_eigenvalue': top_eigenvalue,
    'gradient_norm': gradient_norm,
    'noise_scale': gradient_noise,
}

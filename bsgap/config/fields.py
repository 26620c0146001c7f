"""Every field of the configuration, once, with its default, what is allowed and what it means."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from bsgap.config import schedule
from bsgap.config.checks import (
    Check,
    above_0,
    at_least_0,
    batch_size,
    boolean,
    count,
    count_or_0,
    image_size,
    keyword_arguments,
    model,
    name,
    number,
    one_of,
    pair,
    part,
    share,
    task,
    text,
    tuple_of,
)

MEASUREMENTS = ('sharpness', 'top_eigenvalue', 'lowest_loss', 'gradient_norm')
FIGURES = (
    *('curves', 'accuracy', 'learning_rate_sum', 'schedule', 'updates', 'learning_rate', 'distance'),
    *('best_batch_size', 'above_the_lowest', 'equal_loss', 'lines', 'sharpness', 'gradient_norm'),
)


class Field(NamedTuple):
    default: Any
    check: Check


# What every recipe has unless `sweep` or `recipes` give it another value.
RECIPE_FIELDS: Mapping[str, Field] = {
    # Its schedule, or `stages` in `recipes` in place of it.
    'batch_size': Field(64, batch_size),  # at the start; in sweep and recipes also whole: all examples
    'learning_rate': Field(0.01, at_least_0),  # at the start; after the warm-up
    # Its optimizer, from Optax.
    'momentum': Field(0.0, share),  # sgd, lars
    'weight_decay': Field(0.0, at_least_0),  # sgd, adam: added to the gradient (L2); others: as their papers have it
    # Its training examples.
    'subset': Field(0, number('a whole number of examples, or 0 for all of them', lambda v: v >= 0, whole=True)),
    'label_noise': Field(0.0, number('a share from 0 to 1', lambda v: 0 <= v <= 1)),  # changed to another class
    'data_seed': Field(0, count_or_0),  # shuffles the training split before `validation` and `subset` take their parts
    'label_smoothing': Field(0.0, share),  # of the target probability, spread over all classes in training
    # Its model.
    'model': Field('mlp', model),  # mlp | cnn | module:Class, a Flax NNX module of your own
    'hidden': Field((1024, 1024), tuple_of(count)),  # width of each dense hidden layer (mlp, cnn)
    'channels': Field((32, 64), tuple_of(count)),  # of each convolution (cnn)
    'batch_norm': Field(False, boolean),  # before each ReLU (mlp, cnn)
    'ghost_batch': Field(0, count_or_0),  # take its statistics over parts of this many examples; 0: the whole batch
    'model_arguments': Field({}, keyword_arguments),  # of your own module
    # The optimizer again.
    'optimizer': Field('sgd', one_of(('sgd', 'adam', 'adamw', 'lars', 'lamb'))),
    'nesterov': Field(False, boolean),  # sgd, lars
    'beta1': Field(0.9, share),  # adam, adamw, lamb
    'beta2': Field(0.999, share),
    'clip': Field(0.0, at_least_0),  # the gradient's norm is clipped to this; 0: not at all
    # The schedule again.
    'schedule': Field('constant', one_of(schedule.SCHEDULES)),  # constant | linear | cosine | decay_learning_rate | …
    'epochs': Field(30.0, at_least_0),  # its length: exactly one of epochs, updates, examples; the others are 0
    'updates': Field(0, count_or_0),
    'examples': Field(0, count_or_0),
    'milestones': Field((), tuple_of(above_0)),  # where batch or learning rate change, in the unit of the length
    'factor': Field(5.0, number('a number above 1', lambda v: v > 1)),  # of that change
    'cap': Field(0, count_or_0),  # grow_batch, hybrid: the batch grows no further, the learning rate falls; 0: no cap
    'switch_to': Field((), tuple_of(batch_size)),  # switch_batch: the batch size from each milestone on, also whole
    'warm_up': Field(0.0, at_least_0),  # constant, linear, cosine: its length, in the unit of the length
    'warm_up_start': Field(0.0, at_least_0),  # the learning rate at its start
    'base_batch_size': Field(0, count_or_0),  # what the three rules below compare the batch size with
    'scaling': Field('none', one_of(('none', 'linear', 'sqrt'))),  # of the learning rate with the batch size
    'beta_scaling': Field('none', one_of(('none', 'malladi', 'half_life'))),  # of beta1, beta2 with the batch size
    'adapt_regime': Field(False, boolean),  # multiply all lengths by batch size / base: about equal updates
    'evaluate_epochs': Field(1.0, above_0),  # how many epochs pass between evaluations
    'evaluate_updates': Field(0, count_or_0),  # or how many updates, if above 0
    'evaluate_at': Field((), tuple_of(count_or_0)),  # or at these updates, and at the end
    'evaluate_on': Field('all', one_of(('all', 'validation'))),  # splits, or the validation split alone
    'noise_scale': Field(False, boolean),  # estimate it during training, from the gradients of a batch's parts
}
STUDY_FIELDS: Mapping[str, Field] = {
    'name': Field('study', name),  # names the default workdir, runs/<name>
    # The dataset.
    # mnist (packaged) | csv:, parquet:, npz:FILE | folder:, idx:FOLDER | hf:, sklearn:, tfds:NAME | module:function
    'dataset': Field('mnist', text),
    # classification | regression | module:function, which maps outputs and targets to losses and scores, one an example
    'task': Field('classification', task),
    'target': Field('', text),  # csv, parquet, hf: the column that is to be told from the others
    'image_size': Field((), image_size),  # folder, hf: (height, width) to which pictures are resized; (): as they are
    'test_share': Field(0.2, share),  # held out as the test split where the dataset has none
    'validation': Field(0.0, share),  # of the training split, held out for everything that selects
    'mean': Field((), tuple_of(number('a number', lambda _: True))),  # of pixels from 0 to 1; (): of the training split
    'std': Field((), tuple_of(above_0)),  # likewise; one value, or one a channel or feature
    # The runs.
    # Each recipe is trained with the seeds 0 … seeds − 1.
    'seeds': Field(3, number('a whole number of at least 1, and at most 100000', lambda v: 1 <= v <= 1e5, whole=True)),
    # What is made of them.
    'claims': Field('', text),  # module:function that gives the claims: experiments.mnist:claims; '': none
    'variant': Field('', text),  # of the experiment file, for that function
    'finding': Field('', text),  # a paragraph for the report; {NAME} stands for what was measured for a claim
    'figures': Field(('curves', 'accuracy', 'learning_rate_sum'), tuple_of(one_of(FIGURES))),
    'measurements': Field((), tuple_of(one_of(MEASUREMENTS))),  # at the end of each run
    'lines': Field((), tuple_of(pair)),  # recipes between whose solutions the loss is measured: (('small', 'large'),)
    # How it is computed.
    'max_physical_batch': Field(4096, count),  # larger ones, and those that memory is short for, are made of parts
    'precision': Field('float32', one_of(('float32', 'tensorfloat32', 'bfloat16'))),  # of matrix products
    'deterministic': Field(True, boolean),  # on a GPU: by kernels that give the same bits each time
    'run_axis': Field('auto', one_of(('auto', 'vmap', 'map'))),  # a cohort's runs side by side (vmap) or in turn (map)
    'max_parallel_runs': Field(0, count_or_0),  # trained side by side on a device; 0: as many as its memory holds
    'segment_seconds': Field(1.0, above_0),  # how long the compiled program works between two looks at the clock
    'checkpoint_seconds': Field(30.0, at_least_0),  # save a cohort when this long has passed since it was saved
    'tensorboard': Field(False, boolean),  # also write event files (needs the extra [tensorboard])
    'wandb': Field(False, boolean),  # also log to Weights & Biases (needs the extra [wandb])
}
# A search for the answer: which batch size? See bsgap/search/rounds.py.
SEARCH_FIELDS: Mapping[str, Field] = {
    # How many times the shortest budget is halved to get the length of the first trials; 0: no search.
    'rungs': Field(0, number('a whole number from 0 to 30', lambda v: 0 <= v <= 30, whole=True)),
    'warm_up': Field(0.05, share),  # of each trial's length
    'budget_epochs': Field(3.0, above_0),  # what training may cost: so many epochs,
    'budget_updates': Field(0, count_or_0),  # or updates; 0: as many as the middle batch size makes in budget_epochs,
    'budget_seconds': Field(0.0, at_least_0),  # or seconds on this device; 0: those that it needs for them
    'margin': Field(0.001, part),  # of accuracy: as good within it
    'targets': Field((), tuple_of(part)),  # validation errors
    'confirm_seeds': Field(6, count_or_0),  # fresh ones, trained with what is recommended and beside it
}
# What a search tries if it is not given learning rates: a factor of 4 apart, as their neighbours are tried as well.
LEARNING_RATES: Mapping[str, tuple[float, ...]] = {
    'sgd': (0.0125, 0.05, 0.2, 0.8),
    'adam': (0.00025, 0.001, 0.004, 0.016),
    'adamw': (0.00025, 0.001, 0.004, 0.016),
    'lamb': (0.001, 0.004, 0.016, 0.064),
    'lars': (0.25, 1.0, 4.0, 16.0),
}
# What may differ between two launches on one workdir: the runs that are wanted, what is made of them, and what changes
# rounding at most. What a recipe is, its run.json says.
FREE_FIELDS = (
    *('name', 'recipes', 'seeds', 'claims', 'variant', 'finding', 'figures', 'measurements', 'lines'),
    *('deterministic', 'run_axis', 'max_parallel_runs', 'segment_seconds', 'checkpoint_seconds'),
    *('tensorboard', 'wandb'),
    *(f'search.{field}' for field in ('margin', 'targets', 'confirm_seeds')),
)


def find(path: str) -> Field | None:
    """The field of a config that stands at `seeds`, `search.rungs` or `recipes.NAME.momentum`."""
    owner, _, key = path.rpartition('.')
    if owner.endswith('model_arguments'):  # what a model of the user's own has is its business
        return None
    return (SEARCH_FIELDS if owner == 'search' else {**RECIPE_FIELDS, **STUDY_FIELDS}).get(key)


def default() -> ConfigDict:
    """Every field with its default. Experiment files change some of them, `--config.FIELD=VALUE` any of them.

    `sweep` crosses the values of any of the recipes' fields. `recipes` adds single ones by name, each with the fields
    in which it differs: {'grow': {'schedule': 'grow_batch', 'milestones': (10, 20)}}. In place of a schedule it may
    have a table of stages: {'mine': {'stages': ({'epochs': 2, 'batch_size': 64, 'learning_rate': 0.1},
    {'updates': 100, 'batch_size': 256, 'multiplier': 0.5, 'rule': 'cosine', 'momentum': 0.9})}}.
    """
    config = ConfigDict({key: field.default for key, field in {**RECIPE_FIELDS, **STUDY_FIELDS}.items()})
    config.sweep = ConfigDict(dict.fromkeys(RECIPE_FIELDS, ()))
    config.search = ConfigDict({key: field.default for key, field in SEARCH_FIELDS.items()})
    config.recipes = ConfigDict()
    return config


def searching() -> ConfigDict:
    """`default`, changed to a search: six seeds, learning rates that fall to zero, a sixth of the training split held
    out for validation. The batch sizes (`sweep.batch_size`) are still to be given."""
    config = default()
    config.name = 'which-batch'
    config.schedule, config.seeds, config.validation, config.search.rungs = 'linear', 6, 1 / 6, 2
    return config


def with_variant(study: ConfigDict, variant: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """Applies one of an experiment file's variants: the fields that it changes, by name, dots included.

    Raises:
      UserError: there is no such variant.
    """
    study.variant = variant  # the study may start from a variant of another
    if variant:
        changes = one_of(variants)('variant', variant)
        study.name = f'{study.name}-{variant}'
        study.update_from_flattened_dict(variants[changes])
    return study

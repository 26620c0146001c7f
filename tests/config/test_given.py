"""What is given on the command line has an effect, or is refused."""

from typing import Any

import pytest
from helpers import tiny

from bsgap import config
from bsgap.errors import UserError

ROW = {'epochs': 1, 'batch_size': 8, 'learning_rate': 0.1}
STAGES = {'mine': {'stages': (ROW,)}}


@pytest.mark.parametrize(
    ('given', 'changes'),
    [
        ('batch_size', {}),  # which the sweep gives
        ('batch_size', {'batch_size': (), 'recipes': {'one': {'batch_size': 4}, 'two': {'batch_size': 8}}}),
        ('learning_rate', {'batch_size': (), 'recipes': STAGES}),
        ('epochs', {'batch_size': (), 'recipes': {'one': {'updates': 9}}}),
        ('beta1', {'beta1': 0.8}),
        ('beta_scaling', {'optimizer': 'lars', 'beta_scaling': 'half_life', 'base_batch_size': 8}),
        ('sweep.beta2', {'beta2': (0.9, 0.99)}),
        ('hidden', {'model': 'my:Net', 'hidden': (3,)}),
        ('channels', {'channels': (8,)}),
        ('ghost_batch', {'model': 'cnn', 'ghost_batch': 4}),
        ('model_arguments', {'model_arguments': {'width': 3}}),
        ('milestones', {'milestones': (1,)}),
        (
            'factor',
            {'factor': 3.0, 'schedule': 'switch_batch', 'milestones': (1,), 'switch_to': (64,), 'batch_size': ()},
        ),
        ('cap', {'cap': 999, 'schedule': 'decay_learning_rate', 'milestones': (1,)}),
        ('switch_to', {'switch_to': (9,), 'schedule': 'grow_batch', 'milestones': (1,)}),
        ('warm_up', {'warm_up': 1.0, 'schedule': 'grow_batch', 'milestones': (1,)}),
        ('warm_up_start', {'warm_up_start': 0.01}),
        ('base_batch_size', {'base_batch_size': 8}),
        ('evaluate_epochs', {'evaluate_epochs': 0.5, 'evaluate_updates': 9}),
        ('evaluate_updates', {'evaluate_updates': 3, 'evaluate_at': (2,)}),
        ('nesterov', {'nesterov': True}),
        ('data_seed', {'data_seed': 5, 'subset': 0}),
        ('search.margin', {}),
        ('target', {'target': 'a'}),
        ('image_size', {'image_size': (8, 8), 'dataset': 'csv:f'}),
    ],
)
def test_a_field_without_an_effect_is_named(given: str, changes: dict[str, Any]) -> None:
    settings = tiny(**changes)
    config.resolve(settings)
    with pytest.raises(UserError, match=rf'^config.{given}: has no effect'):
        config.resolve(settings, [given])


@pytest.mark.parametrize(
    ('given', 'changes'),
    [
        ('sweep.batch_size', {}),
        ('batch_size', {'batch_size': ()}),
        ('batch_size', {'recipes': {'one': {'momentum': 0.9}}}),
        ('batch_size', {'batch_size': (), 'recipes': {'one': {'batch_size': 4}, 'two': {'momentum': 0.9}}}),
        ('learning_rate', {'recipes': STAGES}),
        ('momentum', {'recipes': STAGES}),
        ('epochs', {'recipes': {'one': {'updates': 9}}}),
        ('nesterov', {'nesterov': True, 'momentum': (0.0, 0.9)}),
        ('nesterov', {'nesterov': True, 'recipes': {'mine': {'stages': ({**ROW, 'momentum': 0.9},)}}}),
        ('figures', {'figures': ('curves',)}),
        ('beta1', {'optimizer': ('sgd', 'adam'), 'beta1': 0.8}),
        ('beta1', {}),  # as it is anyway
        ('data_seed', {'data_seed': 5}),
        ('data_seed', {'data_seed': 5, 'subset': 0, 'label_noise': 0.1}),
        ('data_seed', {'data_seed': 5, 'subset': 0, 'validation': 0.1}),
        ('sweep.beta2', {'optimizer': 'adam', 'beta2': (0.9, 0.99)}),
        ('base_batch_size', {'scaling': 'linear', 'base_batch_size': 32}),
        ('milestones', {'schedule': 'grow_batch', 'milestones': (1,)}),
        ('seeds', {}),
        ('name', {}),
        ('target', {'target': 'a', 'dataset': 'parquet:f'}),
    ],
)
def test_a_field_with_an_effect_is_not(given: str, changes: dict[str, Any]) -> None:
    settings = tiny(**changes)
    assert config.resolve(settings, [given]) == config.resolve(settings)


@pytest.mark.parametrize(
    ('given', 'instead'),
    [
        ('batch_size', 'sweep.batch_size'),
        ('learning_rate', 'sweep.learning_rate'),
        ('epochs', 'search.budget_epochs'),
        ('updates', 'search.budget_updates'),
        ('warm_up', 'search.warm_up'),
        ('evaluate_at', 'none'),
    ],
)
def test_what_a_search_takes_in_place_of_a_field_is_named(given: str, instead: str) -> None:
    settings = tiny(batch_size=(8, 32), learning_rate=(0.1, 0.3), validation=0.1, schedule='linear')
    settings.search.rungs = 2
    config.resolve(settings, ['momentum', 'sweep.batch_size', 'search.margin', 'schedule'])
    with pytest.raises(UserError, match=f'^config.{given}: has no effect in a search; give {instead}$'):
        config.resolve(settings, [given])
    with pytest.raises(UserError, match=r'^config\.figures: has no effect in a search, which has figures of its own$'):
        config.resolve(settings, ['figures'])

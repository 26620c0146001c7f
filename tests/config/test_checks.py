"""A value that is not allowed is named in one line, with its field and what is allowed."""

from typing import Any

import pytest
from helpers import tiny

from bsgap import config
from bsgap.config import checks
from bsgap.errors import UserError

NAN = float('nan')


@pytest.mark.parametrize(
    ('field', 'value', 'says'),
    [
        ('sweep.batch_size', (0,), '0 is not allowed; it must be a whole number from 1'),
        ('sweep.batch_size', (-1,), '-1 is not allowed'),
        ('sweep.batch_size', (2.5,), '2.5 is not allowed'),
        ('sweep.batch_size', ('x',), "'x' is not allowed"),
        ('sweep.batch_size', (64, 64), 'bs64-lr0.1 is listed twice'),
        ('sweep.learning_rate', (-0.1,), '-0.1 is not allowed; it must be a number of at least 0'),
        ('sweep.learning_rate', (NAN,), 'nan is not allowed'),
        ('sweep.learning_rate', (float('inf'),), 'inf is not allowed'),
        ('sweep.momentum', (1.0,), '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('sweep.weight_decay', (-1.0,), '-1.0 is not allowed'),
        ('sweep.schedule', ('constnat',), "'constnat' is not known; it must be one of constant, linear, cosine"),
        ('batch_size', 0, '0 is not allowed; it must be a whole number from 1'),
        ('learning_rate', NAN, 'nan is not allowed'),
        ('momentum', 1.0, '1.0 is not allowed'),
        ('seeds', 0, '0 is not allowed; it must be a whole number of at least 1'),
        ('epochs', -1, '-1.0 is not allowed; it must be a number of at least 0'),
        ('optimizer', 'sdg', "'sdg' is not known; it must be one of sgd, adam, adamw, lars, lamb"),
        ('beta1', 1.0, '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('beta2', -0.1, '-0.1 is not allowed'),
        ('clip', -1.0, '-1.0 is not allowed; it must be a number of at least 0'),
        ('nesterov', 2, '2 is not known; it must be one of True, False'),
        ('batch_norm', 'yes', "'yes' is not known; it must be one of True, False"),
        ('label_noise', 1.5, '1.5 is not allowed; it must be a share from 0 to 1'),
        ('label_smoothing', 1.0, '1.0 is not allowed; it must be a number of at least 0 and below 1'),
        ('model', None, 'None is not allowed; it must be a text'),
        ('model_arguments', 3, '3 is not allowed; it must map names to values'),
        ('ghost_batch', -1, '-1 is not allowed; it must be a whole number of at least 0'),
        ('channels', (0,), '0 is not allowed'),
        ('factor', 1.0, '1.0 is not allowed; it must be a number above 1'),
        ('milestones', (0,), '0 is not allowed; it must be a number above 0'),
        ('milestones', 3, '3 is not allowed; it must be a tuple'),
        ('cap', -1, '-1 is not allowed'),
        ('scaling', 'log', "'log' is not known; it must be one of none, linear, sqrt"),
        ('beta_scaling', 'sqrt', "'sqrt' is not known; it must be one of none, malladi, half_life"),
        ('evaluate_epochs', 0.0, '0.0 is not allowed; it must be a number above 0'),
        ('evaluate_updates', 0.5, '0.5 is not allowed; it must be a whole number of at least 0'),
        ('figures', ('pie',), "'pie' is not known; it must be one of curves"),
        ('measurements', ('flatness',), "'flatness' is not known; it must be one of sharpness"),
        ('lines', ('a', 'b'), "'a' is not allowed; it must be a pair of recipes"),
        ('claims', 5, '5 is not allowed; it must be a text'),
        ('search.rungs', -1, '-1 is not allowed; it must be a whole number from 0 to 30'),
        ('search.margin', 1.0, '1.0 is not allowed; it must be a share above 0 and below 1'),
        ('precision', 'float16', "'float16' is not known"),
        ('run_axis', 'pmap', "'pmap' is not known"),
        ('hidden', (0,), '0 is not allowed'),
        ('subset', -1, '-1 is not allowed'),
        ('validation', 1.0, '1.0 is not allowed'),
        ('std', (0.0,), '0.0 is not allowed'),
        ('max_physical_batch', 0, '0 is not allowed'),
        ('segment_seconds', 0.0, '0.0 is not allowed'),
        ('checkpoint_seconds', -1.0, '-1.0 is not allowed'),
        ('name', '../x', "'../x' is not allowed"),
        ('name', '', "'' is not allowed"),
        ('name', '..', "'..' is not allowed"),
        ('name', None, 'None is not allowed'),
        ('seeds', 10**400, 'is not allowed'),
        ('hidden', None, 'None is not allowed; it must be a tuple'),
        ('sweep.batch_size', '64', "'64' is not allowed; it must be a tuple"),
        ('sweep', None, 'None is not allowed; it must have the fields adapt_regime, base'),
        ('recipes', 5, '5 is not allowed'),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_field(field: str, value: Any, says: str) -> None:
    settings = tiny()
    owner, _, key = field.rpartition('.')
    with settings.ignore_type():
        (settings[owner] if owner else settings)[key] = value
    with pytest.raises(UserError) as error:
        config.resolve(settings)
    assert str(error.value).startswith(f'config.{field.split(".")[0]}')
    assert says in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        *((text, ()) for text in ('', ' ', '()', '[]', '( )')),
        *((text, (64,)) for text in ('64', '(64,)', '(64)', '[64]', ' 64 ', '64,', ',64')),
        *((text, (64, 256)) for text in ('64,256', '(64, 256)', '[64,256]', '64, 256', '64,256,', '(64,256,)')),
        ('1e-3,0.01,1', (0.001, 0.01, 1)),
        ('-1,None', (-1, None)),
        ('none,2000', (None, 2000)),
        *((text, ('sgd',)) for text in ('sgd', '"sgd"', "('sgd',)", '(sgd)', 'sgd,', "'sgd',")),
        *((text, ('sgd', 'adam')) for text in ('sgd,adam', 'sgd, adam', "('sgd', 'adam')", '["sgd","adam"]')),
        *((text, ('sgd', 'adam')) for text in ('(sgd,adam)', '[sgd, adam]', '"sgd",adam', "'sgd','adam'")),
        *((text, (True, False)) for text in ('True,False', 'true,false', '(True, False)', 'TRUE, False')),
        ('mlp,my.models:Net', ('mlp', 'my.models:Net')),
        ('my.models:Net', ('my.models:Net',)),
        ('(8,),(16,16)', ((8,), (16, 16))),
        ('((8,),(16,16))', ((8,), (16, 16))),
        ("('small', 'large'),", (('small', 'large'),)),
        ("(('small', 'large'),)", (('small', 'large'),)),
    ],
)
def test_a_tuple_on_the_command_line(text: str, values: tuple[Any, ...]) -> None:
    found = checks.values(text)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_what_is_allowed_is_given_back_as_its_type() -> None:
    assert isinstance(checks.count('seeds', 3.0), int)
    assert isinstance(checks.above_0('std', 1), float)
    assert checks.tuple_of(checks.count)('hidden', [3, 4.0]) == (3, 4)
    assert checks.hashable('model_arguments', [1, [2]]) == (1, (2,))
    with pytest.raises(
        UserError, match=r'config.model_arguments: \{\} is not allowed; it must be a number, a text, or a'
    ):
        checks.hashable('model_arguments', [1, {}])

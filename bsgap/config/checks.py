"""Checks of what a user typed. Whatever is wrong ends in a `UserError` of one line."""

import ast
import difflib
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from bsgap.config.task import NAMES
from bsgap.errors import UserError

MOST = 1e30  # what any number may be; more is a slip, and float32 ends soon after

Check = Callable[[str, Any], Any]  # check(field, value) returns the value, or raises UserError


def require(ok: Any, field: str, problem: str) -> None:
    """Refuses what was given for a field, unless it is `ok`."""
    if not ok:
        raise UserError(f'config.{field}: {problem}')


def number(allowed: str, ok: Callable[[Any], bool], whole: bool = False) -> Check:
    """Checks that a number is finite and `ok`; makes it a float, or an int if `whole`."""

    def check(field: str, value: Any) -> Any:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        is_ok = real and abs(value) < MOST and ok(value) and (not whole or value == int(value))
        require(is_ok, field, f'{value!r} is not allowed; it must be {allowed}')
        return int(value) if whole else float(value)

    return check


def one_of(allowed: Iterable[Any]) -> Check:
    def check(field: str, value: Any) -> Any:
        require(value in allowed, field, f'{value!r} is not known; it must be one of {", ".join(map(str, allowed))}')
        return value

    return check


def values(text: str) -> tuple[Any, ...]:
    """What the command line has for a tuple: (64, 256), 64,256 and 64; ('sgd', 'adam') and sgd,adam; True,false; ''."""

    def value(item: str) -> Any:
        try:
            return ast.literal_eval(item.capitalize() if item.lower() in ('true', 'false', 'none') else item)
        except (SyntaxError, ValueError):
            return item

    found = value(text.strip())
    if isinstance(found, str):
        inner = text.strip()
        inner = inner[1:-1] if inner[:1] + inner[-1:] in ('()', '[]') else inner
        return tuple(value(item.strip()) for item in inner.split(',') if item.strip())
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def tuple_of(check: Check) -> Check:
    def checked(field: str, given: Any) -> tuple[Any, ...]:
        require(isinstance(given, tuple | list), field, f'{given!r} is not allowed; it must be a tuple, such as (64,)')
        return tuple(check(field, value) for value in given)

    return checked


def boolean(field: str, value: Any) -> bool:
    return bool(one_of((True, False))(field, value))


def model(field: str, value: Any) -> str:
    module, is_own, name = text(field, value).partition(':')
    ok = (module and name) if is_own else value in ('mlp', 'cnn')
    require(ok, field, f'{value!r} is not known; it must be mlp, cnn, or module:Class, a Flax NNX module of your own')
    return value


def text(field: str, value: Any) -> str:
    require(isinstance(value, str), field, f'{value!r} is not allowed; it must be a text')
    return value


def name(field: str, value: Any) -> str:
    ok = isinstance(value, str) and re.fullmatch(r'[^\W_][\w.-]*', value)  # Matplotlib leaves out what begins with "_"
    require(ok, field, f'{value!r} is not allowed; a name is letters and digits, and then "_", "." and "-"')
    return value


def hashable(field: str, value: Any) -> Any:
    """Lists become tuples, as they can't be part of what a compiled program is known by."""
    if isinstance(value, tuple | list):
        return tuple(hashable(field, item) for item in value)
    try:
        hash(value)
    except TypeError:
        raise UserError(f'config.{field}: {value!r} is not allowed; it must be a number, a text, or a tuple') from None
    return value


def mapping(field: str, value: Any) -> dict[str, Any]:
    require(isinstance(value, Mapping | ConfigDict), field, f'{value!r} is not allowed; it must map names to values')
    return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def keyword_arguments(field: str, value: Any) -> Any:
    return hashable(field, sorted(mapping(field, value).items()))


def pair(field: str, value: Any) -> tuple[str, str]:
    ok = isinstance(value, tuple | list) and len(value) == 2
    require(ok, field, f"{value!r} is not allowed; it must be a pair of recipes, ('bs256', 'bs6000')")
    return text(field, value[0]), text(field, value[1])


def task(field: str, value: Any) -> str:
    return value if ':' in text(field, value) else one_of(NAMES)(field, value)


def image_size(field: str, value: Any) -> tuple[int, ...]:
    size = tuple_of(count)(field, value)
    require(len(size) in (0, 2), field, f'{value!r} is not allowed; it must be (height, width), or () for none')
    return size


def same_fields(prefix: str, config: Any, known: Iterable[str]) -> None:
    """Checks that a mapping has the fields that are known and no others; `prefix` ends with a dot, or is empty."""
    of = ', '.join(known)
    is_mapping = isinstance(config, Mapping | ConfigDict)
    require(is_mapping, prefix[:-1], f'{config!r} is not allowed; it must have the fields {of}')
    for field in sorted(set(config).difference(known)):
        near = difflib.get_close_matches(field, known, n=1)
        hint = f'did you mean config.{prefix}{near[0]}?' if near else f'known: {of}'
        require(False, prefix + field, f'unknown field; {hint}')
    for field in known:
        require(field in config, prefix + field, 'missing; start the config from bsgap.default_config()')


count = number('a whole number of at least 1', lambda v: v >= 1, whole=True)
count_or_0 = number('a whole number of at least 0', lambda v: v >= 0, whole=True)
at_least_0 = number('a number of at least 0', lambda v: v >= 0)
above_0 = number('a number above 0', lambda v: v > 0)
part = number('a share above 0 and below 1', lambda v: 0 < v < 1)
share = number('a number of at least 0 and below 1', lambda v: 0 <= v < 1)

WHOLE = 'whole'  # a batch of all training examples, how many there may be
_examples = number('a whole number from 1 to the number of training examples, or whole for all', lambda v: v >= 1, True)


def batch_size(field: str, value: Any) -> int | str:
    return WHOLE if value == WHOLE else int(_examples(field, value))

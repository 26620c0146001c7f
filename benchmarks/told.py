"""How the benchmarks tell what they measured."""

import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median [smallest – largest]."""
    low, middle, high = (short(scale * f(values)) for f in (min, statistics.median, max))
    return f'{middle} [{low} – {high}]'


def short(value: float) -> str:
    """Three digits, without an exponent."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def machine(*packages: str) -> str:
    """The processor, Python, and the versions of those packages that are installed."""
    installed = reversed([*metadata.distributions()])  # of two the first on the path is what is imported
    found = {d.metadata['Name'].lower(): d.version for d in installed if d.metadata['Name']}
    versions = ', '.join(f'{package} {found[package]}' for package in packages if package in found)
    return f'{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}'

"""Which device trains which runs."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from bsgap.training.runs import Run, cost


def deal_out(runs: Sequence[Run], devices: int, side_by_side: bool) -> list[list[Run]]:
    """Deals runs out to devices so that the one that is busy longest is so for as short as may be.

    Runs with the same batch sizes stay together, so that they form cohorts, unless parting them helps. The longest go
    first, each to the device that has least (Graham 1969). A function of its arguments alone, not of what is trained.
    """
    alike: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        batch_sizes = tuple((span.stage.batch_size, span.last_example) for span in run.spans)
        alike.setdefault((run.program, batch_sizes), []).append(i)

    def cost_of(piece: Sequence[int]) -> float:
        return cost(runs[piece[0]], runs=len(piece), side_by_side=side_by_side)

    def deal(pieces: Iterable[list[int]]) -> list[list[list[int]]]:
        dealt: list[list[list[int]]] = [[] for _ in range(devices)]
        for piece in sorted(pieces, key=cost_of, reverse=True):
            min(dealt, key=load).append(piece)
        return sorted(dealt, key=load, reverse=True)

    def load(device: Iterable[list[int]]) -> float:
        return sum(map(cost_of, device))

    pieces = list(alike.values())
    best = deal(pieces)
    while len(largest := max(best[0], key=cost_of, default=[])) > 1:
        parted = [piece for piece in pieces if piece is not largest] + [largest[::2], largest[1::2]]
        dealt = deal(parted)
        if list(map(load, dealt)) >= list(map(load, best)):
            break
        pieces, best = parted, dealt
    return [[runs[i] for i in sorted(itertools.chain.from_iterable(device))] for device in best]

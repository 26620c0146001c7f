"""Who is told how training goes: a live table, event files, a user's own."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from bsgap.training.cohort import Member


class Watcher:
    """Override what you want to hear of; by default nothing is done. Several devices' threads may call at once."""

    def compiling(self, what: str) -> None:
        """A program is being compiled."""

    def compiled(self, what: str, seconds: float) -> None:
        """It is."""

    def began(self, members: Sequence[Member]) -> None:
        """From now on these runs are trained, from where they are; their earlier rows are read."""

    def trained(self, members: Sequence[Member], examples: int, seconds: float) -> None:
        """A cohort's segment has ended; `examples` is the sum over its runs."""

    def evaluated(self, members: Sequence[Member]) -> None:
        """Some of a cohort's runs have a new row, the last of `member.rows`."""

    def saved(self, members: Sequence[Member]) -> None:
        """These runs are being saved, at `member.update`."""

    def warned(self, message: str) -> None:
        """Something is not as it should be, and training goes on."""

    def noted(self, message: str) -> None:
        """Something was done that is worth a line."""


class WatcherError(Exception):
    """A user's watcher has failed; its own error is the cause. Training ends, with all runs saved."""


def as_one(watchers: Sequence[Watcher], of_user: Sequence[Watcher] = ()) -> Watcher:
    """Several watchers as one; they are told in their order, the user's last."""

    class All:
        def __getattr__(self, event: str) -> Callable[..., None]:
            def tell(*what: Any) -> None:
                for watcher in watchers:
                    getattr(watcher, event)(*what)
                try:
                    for watcher in of_user:
                        getattr(watcher, event)(*what)
                except Exception as error:
                    raise WatcherError from error

            return tell

    return cast(Watcher, All())

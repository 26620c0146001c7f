"""Where runs go on that were trained before."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bsgap.training import rows
from bsgap.training.checkpoint import DamagedError, Saved
from bsgap.training.cohort import Member
from bsgap.training.programs import Programs
from bsgap.training.runs import Run
from bsgap.training.watcher import Watcher
from bsgap.training.workdir import run_folder, saved_updates


def is_done(run: Run, workdir: Path, records: Mapping[str, rows.Record]) -> bool:
    """Whether a run has all its rows, and what is kept of it at its end, or has diverged."""
    if not (record := records.get(run.name)):
        return False
    answers = run_folder(workdir, run.name) / 'answers.json'
    kept = run.updates in saved_updates(workdir, run.name) if run.keep else answers.exists()
    return record.status == 'diverged' or (kept and {row['update'] for row in record.rows}.issuperset(run.evaluations))


def restore(members: Iterable[Member], programs: Programs, watcher: Watcher, header: Sequence[str]) -> None:
    """Puts each of these runs, which are not done, where it goes on, and deletes later rows and checkpoints."""
    of_run = {member.run: member for member in members}
    saved = {run: _usable(member) for run, member in of_run.items()}
    loaded: dict[tuple[Run, int], Saved] = {}
    while True:
        starts = start_updates(saved, lambda run, update: of_run[run].checkpoints.cohort(update))
        wanted = [place for place in starts.items() if place[1] and place not in loaded]
        if not wanted:
            break
        for run, update in wanted:
            checkpoints = of_run[run].checkpoints
            try:
                loaded[run, update] = checkpoints.load(update, programs.abstract_state(run))
            except DamagedError as error:
                damaged = f'{checkpoints.folder}/{update} is damaged ({error})'
                watcher.warned(f'{damaged}; going on from the one before')
                saved[run].remove(update)
    for run, member in of_run.items():
        member.update = member.saved_update = starts[run]
        if member.update:
            member.state, member.train_seconds, member.eval_seconds, _ = loaded[run, member.update]
        if not member.rows and not run.evaluations[0] and member.checkpoints.updates():
            watcher.warned(f'{member.folder}/metrics.csv is damaged in its first row; the run starts anew')
        member.checkpoints.delete_after(member.update)
        due = set(run.evaluations)  # a run that was shorter before was evaluated at its end
        kept = [row for row in member.rows if row['update'] <= member.update and row['update'] in due]
        member.rows[:] = kept if member.update else []  # what made the untrained network may have changed since
        if member.rows and (last := member.rows[-1])['update'] == member.update:  # it may have come after the save
            member.train_seconds, member.eval_seconds = last['train_seconds'], last['eval_seconds']
        rows.write(member.folder / 'metrics.csv', member.rows, header)


def _usable(member: Member) -> list[int]:
    """The updates from which a run can go on: saved, with all rows that were due before."""
    have = {row['update'] for row in member.rows}
    first_missing = next((update for update in member.run.evaluations if update not in have), member.run.updates)
    last = min(first_missing, member.run.updates - 1)
    return [update for update in member.checkpoints.updates() if update <= last]


def start_updates(saved: dict[Run, list[int]], cohort: Callable[[Run, int], list[str]]) -> dict[Run, int]:
    """Where each run goes on, given the updates at which it was saved and the cohort that it was saved with: where it
    was saved last, unless the process was killed while it saved a cohort; then the runs that are ahead go back to where
    the others are, so that the cohort goes on as it was."""
    left = {run: [0, *sorted(updates)] for run, updates in saved.items()}
    by_name = {run.name: run for run in saved}

    def ahead(run: Run) -> bool:
        *before, last = left[run]
        mates = [by_name[name] for name in cohort(run, last) if name in by_name] if before else []
        return any(mate.example(left[mate][-1]) == run.example(before[-1]) for mate in mates if mate != run)

    while torn := [run for run in left if ahead(run)]:
        for run in torn:
            left[run].pop()
    return {run: updates[-1] for run, updates in left.items()}

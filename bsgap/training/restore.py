"""Where runs go on that were trained before."""

from collections.abc import Callable, Mapping, Sequence
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


def restore(members: Sequence[Member], programs: Programs, watcher: Watcher, header: Sequence[str]) -> list[Member]:
    """Puts every run where it goes on, deletes later rows and checkpoints, and returns those with updates to make."""
    going_on = {member.run: member for member in members if _begun(member) and not member.diverged}
    saved = {run: _usable(member) for run, member in going_on.items()}
    loaded: dict[tuple[Run, int], Saved] = {}
    while True:
        found = start_updates(saved, lambda run, update: going_on[run].checkpoints.cohort(update))
        starts = {member.run: found.get(member.run, 0) for member in members if not member.diverged}
        going = [member for member in members if starts.get(member.run, member.run.updates) < member.run.updates]
        wanted = [member for member in going if starts[member.run] and (member.run, starts[member.run]) not in loaded]
        if not wanted:
            break
        for member in wanted:
            update = starts[member.run]
            try:
                loaded[member.run, update] = member.checkpoints.load(update, programs.abstract_state(member.run))
            except DamagedError as error:
                damaged = f'{member.checkpoints.folder}/{update} is damaged ({error})'
                watcher.warned(f'{damaged}; going on from the one before')
                saved[member.run].remove(update)
    for member in going:
        member.update = member.saved_update = starts[member.run]
        if member.update:
            member.state, member.train_seconds, member.eval_seconds, _ = loaded[member.run, member.update]
        if not _begun(member) and member.checkpoints.updates():
            watcher.warned(f'{member.folder}/metrics.csv is damaged in its first row; the run starts anew')
        member.checkpoints.delete_after(member.update)
        due = set(member.run.evaluations)  # a run that was shorter before was evaluated at its end
        kept = [row for row in member.rows if row['update'] <= member.update and row['update'] in due]
        member.rows[:] = kept if member.update else []  # what made the untrained network may have changed since
        if member.rows and (last := member.rows[-1])['update'] == member.update:  # it may have come after the save
            member.train_seconds, member.eval_seconds = last['train_seconds'], last['eval_seconds']
        rows.write(member.folder / 'metrics.csv', member.rows, header)
    return going


def _begun(member: Member) -> bool:
    """Whether it has its first row, if one is due at its start."""
    return bool(member.rows) or member.run.evaluations[0] > 0


def _usable(member: Member) -> list[int]:
    """The updates from which a run can go on: saved, with all rows that were due before."""
    have = {row['update'] for row in member.rows}
    missing = [update for update in member.run.evaluations if update not in have]
    last = min(missing[0], member.run.updates - 1) if missing else member.run.updates
    return [update for update in member.checkpoints.updates() if update <= last]


def start_updates(saved: dict[Run, list[int]], cohort: Callable[[Run, int], list[str]]) -> dict[Run, int]:
    """Where each run goes on, given the updates at which it was saved and the cohort that it was saved with: where it
    was saved last, unless the process was killed while it saved a cohort; then the runs that are ahead go back to where
    the others are, so that the cohort goes on as it was."""
    left = {run: sorted(updates) for run, updates in saved.items()}
    by_name = {run.name: run for run in saved}

    def last(run: Run, updates: list[int]) -> int:
        return run.example(updates[-1]) if updates else 0

    def ahead(run: Run) -> bool:
        updates = left[run]
        mates = [by_name[name] for name in cohort(run, updates[-1]) if name in by_name] if updates else []
        return any(last(mate, left[mate]) == last(run, updates[:-1]) for mate in mates if mate != run)

    while torn := [run for run in left if ahead(run)]:
        for run in torn:
            left[run].pop()
    return {run: updates[-1] if updates else 0 for run, updates in left.items()}

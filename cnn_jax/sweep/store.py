"""The trials of a sweep in Optuna's storage: who may run which, how far they are, and what became of them.

The storage is all that workers have in common. A trial is a row of it with a number; it is claimed by a lease, runs in
a folder of its own, and is finished by the first that says so. A trial whose worker died is claimed again, and its run
goes on from its checkpoint.
"""

import contextlib
import datetime
import functools
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from cnn_jax import config as configs
from cnn_jax.errors import UsageError, nearest
from cnn_jax.sweep.engines import Engine, Proposal, learns, load_optuna, make_pruner
from cnn_jax.sweep.leases import BEAT_SECONDS, Leases, machine
from cnn_jax.sweep.settings import ONE_MACHINE, Place, Sweep, without_password
from cnn_jax.sweep.table import Row, with_spreads
from cnn_jax.sweep.trial import Outcome, State, Trial, trial_directory

if TYPE_CHECKING:
    import optuna

_PATIENCE_SECONDS = 600.0  # with a database that does not answer
_MOST_DEATHS = 3  # of the workers of one trial, at one place of its run
_ALIKE = 3  # first trials that fail for one reason, which ends a sweep
_DAMAGED = ("file is not a database", "database disk image is malformed")  # says SQLite
_PROPOSALS = "proposals"  # the lease of the one process that adds points

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class LeaseLost(Exception):
    """Another worker has taken this one for dead and has taken over its trial."""


class Running(NamedTuple):
    """How far a trial is: for how long it has run, its last evaluation and score (0 and None before the first)."""

    row: Row
    seconds: float
    evaluation: int
    score: float | None


def _patient(
    method: Callable[Concatenate["Store", _Arguments], _Result],
) -> Callable[Concatenate["Store", _Arguments], _Result]:
    """Repeats a method while the database does not answer: all of them may be repeated."""

    @functools.wraps(method)
    def repeated(self: "Store", *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        import sqlalchemy

        away = (
            sqlalchemy.exc.OperationalError,
            sqlalchemy.exc.InterfaceError,
            self.optuna.exceptions.StorageInternalError,
        )
        end = time.monotonic() + _PATIENCE_SECONDS
        for attempt in range(1_000_000):
            try:
                return method(self, *arguments, **options)
            except away as error:
                if time.monotonic() > end:
                    line = " ".join(str(error).split())
                    raise UsageError(f"{without_password(self.place.url)} does not answer: {line}") from error
                time.sleep(min(0.1 * 2**attempt, 5.0))
        raise AssertionError

    return repeated


class Store:
    """The trials of one sweep.

    Args:
      place: where it is.
      sweep: what it is, to begin it; by default what the storage says.

    Raises:
      UsageError: the database cannot be opened, or holds no such sweep.
    """

    def __init__(self, place: Place, sweep: Sweep | None = None) -> None:
        self.optuna = load_optuna()
        self.place = place
        self._storage = _open(place.url)
        try:
            self._study = self.optuna.load_study(study_name=place.study, storage=self._storage)
        except KeyError:
            if sweep is None:
                raise UsageError(f"{without_password(place.url)} holds no sweep {place.study!r}") from None
            self._study = self.optuna.create_study(
                study_name=place.study, storage=self._storage, direction=sweep.direction, load_if_exists=True
            )
        if "sweep" not in self._study.user_attrs and sweep is not None:
            self._study.set_user_attr("directory", str(place.directory.absolute()))
            self._study.set_user_attr("sweep", sweep.to_json())
        self.sweep = Sweep.from_json(self._study.user_attrs["sweep"])
        self._study.pruner = make_pruner(self.sweep.pruner)
        self._id = self._storage.get_study_id_from_name(place.study)
        self._engine = Engine(self.sweep)
        self._leases = Leases(self._storage.engine, place.study)

    def close(self) -> None:
        """Closes the connections to the database; the next use opens new ones."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @_patient
    def note_machine(self) -> None:
        """Says that the sweep is run from this machine, for :meth:`check_machine` elsewhere."""
        self._study.set_user_attr("machine", {"name": platform.node(), "boot": machine()})

    @_patient
    def check_machine(self) -> None:
        """Refuses to work on a sweep in SQLite that is run from another machine: its file would be damaged.

        Raises:
          UsageError: it is.
        """
        known = self._study.user_attrs.get("machine")
        if self.place.is_local and known is not None and known["boot"] != machine():
            raise UsageError(f"{platform.node()} cannot work on what is run from {known['name']}: {ONE_MACHINE}")

    def extend(self, points: int) -> None:
        """Makes the sweep one of more points."""
        fields = self.sweep.to_json()
        self._study.set_user_attr("sweep", {**fields, "points": max(points, self.sweep.points)})
        self.sweep = Sweep.from_json(self._study.user_attrs["sweep"])
        self._engine = Engine(self.sweep)

    @_patient
    def claim(self, most: int = 1) -> list[Trial] | None:
        """Takes trials to run: those that another worker left, or new ones.

        Returns:
          No more than ``most``; none if one has to wait for those that run now; None when there is nothing left to do.
        """
        claimed: list[Trial] = []
        while len(claimed) < most:
            trials = self._trials()
            if self._failure(trials):
                return claimed or None
            unfinished = [trial for trial in trials if not trial.state.is_finished()]
            taken = self._take(unfinished, trials)
            if taken is not None:
                claimed.append(taken)
            elif len(trials) < self.sweep.trials:
                if not self._propose():
                    break
            elif not unfinished:
                return claimed or None
            else:
                break
        return claimed

    @_patient
    def report(self, trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
        """Notes an evaluation of a trial that this process runs; whether the trial is pruned.

        The first run of a point decides for all of them, by the mean of those that are as far.

        Raises:
          LeaseLost: the trial is another worker's now.
          UsageError: the scores lack the sweep's metric.
        """
        if not self._leases.holds(_lease(trial.number)):
            raise LeaseLost
        value = self.score(scores)
        self._storage.set_trial_intermediate_value(self._trial_id(trial.number), evaluation, value)
        if self.sweep.pruner == "none":
            return False
        first = trial.point * self.sweep.seeds
        runs = self._trials()[first : first + self.sweep.seeds]
        if trial.number != first:
            return runs[0].state == self.optuna.trial.TrialState.PRUNED
        as_far = [run.intermediate_values[evaluation] for run in runs if evaluation in run.intermediate_values]
        leader = self._storage.get_trial(self._trial_id(first))
        leader.intermediate_values[evaluation] = statistics.fmean(as_far)
        return self._study.pruner.prune(self._study, leader)

    @_patient
    def finish(self, outcome: Outcome) -> bool:
        """Notes what became of a trial that this process runs; False if it is another worker's now, or was finished."""
        name = _lease(outcome.number)
        if not self._leases.holds(name):
            return False
        number = self._trial_id(outcome.number)
        for key in ("reason", "seconds"):
            self._storage.set_trial_user_attr(number, key, getattr(outcome, key))
        state = self._state(outcome.state)
        with contextlib.suppress(self.optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_state_values(number, state, None if outcome.score is None else [outcome.score])
        self._leases.give_back(name)
        return True

    @_patient
    def give_back(self, trial: Trial) -> None:
        """Leaves a trial that this process has begun to any other."""
        if self._leases.holds(_lease(trial.number)):
            waiting = self.optuna.trial.TrialState.WAITING
            with contextlib.suppress(self.optuna.exceptions.UpdateFinishedTrialError):
                self._storage.set_trial_state_values(self._trial_id(trial.number), waiting)
            self._leases.give_back(_lease(trial.number))

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Within it, this process is known to live, and its trials stay its own."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with contextlib.suppress(Exception):  # the database may be away, and will be asked again
                    self._leases.beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @_patient
    def rows(self) -> list[Row]:
        """The table of all trials that have been proposed."""
        return with_spreads(self._rows(self._trials()))

    @_patient
    def running(self) -> list[Running]:
        """The trials that somebody works on."""
        trials = [trial for trial in self._trials() if not trial.state.is_finished()]
        now = datetime.datetime.now()
        found = []
        for trial, row in zip(trials, self._rows(trials), strict=True):
            if row.state == "running":
                evaluation, score = max(trial.intermediate_values.items(), default=(0, None))
                seconds = (now - (trial.datetime_start or now)).total_seconds()
                found.append(Running(row, seconds, evaluation, score))
        return found

    @_patient
    def failure(self) -> str | None:
        """The one reason for which all the first trials failed, which ends the sweep; None otherwise."""
        return self._failure(self._trials())

    def score(self, scores: Mapping[str, float]) -> float:
        """The sweep's metric among some scores.

        Raises:
          UsageError: it is not among them.
        """
        metric = self.sweep.metric
        if metric not in scores:
            raise UsageError(f"--metric={metric} is not among the scores; {nearest(metric, scores)}")
        return float(scores[metric])

    def _trials(self) -> list["optuna.trial.FrozenTrial"]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _state(self, state: State) -> "optuna.trial.TrialState":
        states = self.optuna.trial.TrialState
        return {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]

    def _rows(self, trials: Sequence["optuna.trial.FrozenTrial"]) -> list[Row]:
        unfinished = [_lease(trial.number) for trial in trials if not trial.state.is_finished()]
        free = set(self._leases.free(unfinished)) if unfinished else set()
        names: dict[Any, State] = {self._state(state): state for state in ("complete", "pruned", "failed")}
        return [
            Row(
                number=trial.number,
                point=trial.user_attrs["point"],
                state=names.get(trial.state, "waiting" if _lease(trial.number) in free else "running"),
                score=trial.value if trial.values else None,
                seconds=trial.user_attrs.get("seconds", 0.0),
                reason=trial.user_attrs.get("reason", ""),
                overrides=configs.with_tuples(trial.user_attrs["overrides"]),
            )
            for trial in trials
        ]

    def _failure(self, trials: Sequence["optuna.trial.FrozenTrial"]) -> str | None:
        first = trials[:_ALIKE]
        failed = [trial for trial in first if trial.state == self.optuna.trial.TrialState.FAIL]
        reasons = {trial.user_attrs.get("reason") for trial in failed}
        return reasons.pop() if len(failed) == _ALIKE and len(reasons) == 1 else None

    def _take(
        self, unfinished: Sequence["optuna.trial.FrozenTrial"], trials: Sequence["optuna.trial.FrozenTrial"]
    ) -> Trial | None:
        """Begins the first of the trials that nobody works on."""
        free = set(self._leases.free([_lease(trial.number) for trial in unfinished])) if unfinished else set()
        for candidate in unfinished:
            name = _lease(candidate.number)
            if name not in free or not self._leases.take(name):
                continue
            frozen = self._storage.get_trial(self._trial_id(candidate.number))
            trial = self._as_trial(frozen)
            if frozen.state.is_finished():
                self._leases.give_back(name)
            elif trials[trial.point * self.sweep.seeds].state == self.optuna.trial.TrialState.PRUNED:
                self.finish(Outcome(trial.number, "pruned", reason="pruned together with the other runs of its point"))
            elif frozen.state == self.optuna.trial.TrialState.WAITING:
                self._storage.set_trial_state_values(
                    self._trial_id(frozen.number), self.optuna.trial.TrialState.RUNNING
                )
                return trial
            elif self._deaths(frozen, trial) < _MOST_DEATHS:
                return trial
            else:
                reason = f"its process ended {_MOST_DEATHS} times at the same place (out of memory?)"
                self.finish(Outcome(trial.number, "failed", reason=reason))
        return None

    def _as_trial(self, frozen: "optuna.trial.FrozenTrial") -> Trial:
        overrides = configs.with_tuples(frozen.user_attrs["overrides"])
        config = configs.override(self.sweep.config, overrides)
        workdir = trial_directory(self.place.directory, frozen.number)
        return Trial(frozen.number, overrides, config, workdir, point=frozen.user_attrs["point"])

    def _deaths(self, frozen: "optuna.trial.FrozenTrial", trial: Trial) -> int:
        """How often workers have died on a trial since its run last came forward, this time included."""
        metrics = trial.workdir / "metrics.jsonl"
        place = metrics.stat().st_size if metrics.exists() else 0
        before = frozen.user_attrs.get("deaths", {"place": -1, "count": 0})
        count = before["count"] + 1 if before["place"] == place else 1
        self._storage.set_trial_user_attr(self._trial_id(trial.number), "deaths", {"place": place, "count": count})
        return count

    def _propose(self) -> bool:
        """Adds a point; False if another process is about to, or results have to come in first."""
        if not self._leases.take(_PROPOSALS):
            return False
        try:
            trials = self._trials()
            if len(trials) >= self.sweep.trials:
                return True  # another process has
            point, begun = divmod(len(trials), self.sweep.seeds)
            proposal = self._proposal(point, trials[point * self.sweep.seeds :] if begun else (), trials)
            if proposal is None:
                return False
            for run in range(begun, self.sweep.seeds):
                seeded = {"seed": self.sweep.seed + run} if self.sweep.seeds > 1 else {}
                frozen = self.optuna.create_trial(
                    state=self.optuna.trial.TrialState.WAITING,
                    params=proposal.params,
                    distributions=proposal.distributions,
                    system_attrs=proposal.system_attrs,
                    user_attrs={"point": point, "overrides": {**proposal.overrides, **seeded}},
                )
                self._study.add_trial(frozen)
            return True
        finally:
            self._leases.give_back(_PROPOSALS)

    def _proposal(
        self,
        point: int,
        begun: Sequence["optuna.trial.FrozenTrial"],
        trials: Sequence["optuna.trial.FrozenTrial"],
    ) -> Proposal | None:
        """A point, or one of which a process that died had added only some runs."""
        if begun:
            first = begun[0]
            return Proposal(first.user_attrs["overrides"], first.params, first.distributions, first.system_attrs)
        known = [self._point(trials, number) for number in range(point)] if learns(self.sweep.engine) else []
        return self._engine.propose(point, known)

    def _point(self, trials: Sequence["optuna.trial.FrozenTrial"], number: int) -> "optuna.trial.FrozenTrial":
        """All runs of a point as one trial, whose value is their mean."""
        states = self.optuna.trial.TrialState
        runs = trials[number * self.sweep.seeds : (number + 1) * self.sweep.seeds]
        found = {run.state for run in runs}
        first = runs[0]
        kept: dict[str, Any] = {
            "params": first.params,
            "distributions": first.distributions,
            "system_attrs": first.system_attrs,
        }
        if not all(state.is_finished() for state in found):
            return self.optuna.create_trial(state=states.RUNNING, **kept)
        if states.PRUNED in found:
            return self.optuna.create_trial(state=states.PRUNED, intermediate_values=first.intermediate_values, **kept)
        if states.FAIL in found:
            return self.optuna.create_trial(state=states.FAIL, **kept)
        return self.optuna.create_trial(value=statistics.fmean(run.value or 0.0 for run in runs), **kept)


def _lease(number: int) -> str:
    return f"trial {number}"


def sweeps_in(storage: str) -> list[Place]:
    """The places of the sweeps that a database holds.

    Raises:
      UsageError: the database cannot be opened.
    """
    optuna = load_optuna()
    opened = _open(Place(Path(), storage).url)
    names = optuna.get_all_study_names(opened)
    attributes = [optuna.load_study(study_name=name, storage=opened).user_attrs for name in names]
    opened.remove_session()
    opened.engine.dispose()
    return [Place(Path(found["directory"]), storage) for found in attributes if "sweep" in found]


def _open(url: str) -> "optuna.storages.RDBStorage":
    import sqlalchemy

    optuna = load_optuna()
    # Several processes share the file: each waits for the others' writes.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in range(5):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            break
        except ImportError as error:
            raise UsageError(f"--storage={without_password(url)}: {error} ({error.__cause__})") from error
        except sqlalchemy.exc.ArgumentError as error:
            mend = "write it as postgresql://user@host/database"
            raise UsageError(f"--storage={without_password(url)}: {' '.join(str(error).split())}; {mend}") from error
        except (optuna.exceptions.OptunaError, RuntimeError) as error:
            raise UsageError(f"--storage={without_password(url)}: {' '.join(str(error).split())}") from error
        except sqlalchemy.exc.DBAPIError as error:
            # Two processes that make the tables at once: the second finds them made.
            line = " ".join(str(error.orig).split())
            if line in _DAMAGED:
                mend = "remove it, and give the same command: trials that have ended are found in their folders"
                raise UsageError(f"{url.removeprefix('sqlite:///')} is damaged ({line}); {mend}") from error
            if attempt == 4:
                raise UsageError(f"--storage={without_password(url)}: {line}") from error
            time.sleep(0.2 * 2**attempt)
    if url.startswith("sqlite"):
        sqlalchemy.event.listen(storage.engine, "connect", _write_ahead)
        storage.engine.dispose()  # of the connections from before
    return storage


def _write_ahead(connection: Any, _: object) -> None:
    """A log ahead of SQLite's file: readers do not wait; a commit outlives the process, not waiting for the disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")

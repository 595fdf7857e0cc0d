"""The trials of a sweep in Optuna's storage: the process that runs each trial, its progress, and its outcome.

Workers share only the storage. A trial is a numbered row in it. A process claims a trial with a lease and runs it in
the trial's own folder; the first process that reports an outcome finishes the trial. If a worker dies, its trial is
claimed again and its run continues from its checkpoint.
"""

import contextlib
import dataclasses
import datetime
import platform
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cnn_jax import config as configs
from cnn_jax import schema
from cnn_jax.errors import UsageError, nearest
from cnn_jax.sweep.database import open_storage, patient
from cnn_jax.sweep.leases import BEAT_SECONDS, Leases, machine
from cnn_jax.sweep.samplers import Proposal, Sampler, learns, load_optuna, make_pruner
from cnn_jax.sweep.settings import ONE_MACHINE, Sweep, SweepPlace, without_password
from cnn_jax.sweep.table import TrialRow, with_spreads
from cnn_jax.sweep.trial import Outcome, State, Trial, trial_directory

if TYPE_CHECKING:
    import optuna

_MOST_DEATHS = 3  # after so many dead workers at the same point of its run, a trial has failed
_ALIKE = 3  # if so many first trials fail for the same reason, the sweep ends
_PROPOSALS = "proposals"  # the lease of the process that adds points


class LeaseLost(Exception):
    """Another worker has taken over the trial, because it considered this worker dead."""


class Running(NamedTuple):
    """The progress of a trial: its duration so far, its last evaluation and score (0 and None before the first)."""

    row: TrialRow
    seconds: float
    evaluation: int
    score: float | None


class Store:
    """The trials of one sweep.

    Args:
      place: The folder and database of the sweep.
      sweep: The settings of a new sweep; by default those in the storage.
      owner: The name under which trials are claimed; by default the name of this process from
        :func:`cnn_jax.sweep.leases.this_process`.

    Raises:
      UsageError: The database cannot be opened, or does not contain the sweep.
    """

    def __init__(self, place: SweepPlace, sweep: Sweep | None = None, *, owner: str = "") -> None:
        self.optuna = load_optuna()
        self.place = place
        self._storage = open_storage(place)
        self._claimed: set[str] = set()  # the leases of the trials that this process runs
        self._load(sweep)
        self._study.pruner = make_pruner(self.sweep.pruner)
        self._id = self._storage.get_study_id_from_name(place.study)
        self._sampler = Sampler(self.sweep)
        self._leases = Leases(self._storage.engine, place.study, owner=owner)

    @patient
    def _load(self, sweep: Sweep | None) -> None:
        place = self.place
        try:
            self._study = self.optuna.load_study(study_name=place.study, storage=self._storage)
        except KeyError:
            if sweep is None:
                raise UsageError(f"{without_password(place.url)} holds no sweep {place.study!r}") from None
            self._study = self.optuna.create_study(
                study_name=place.study, storage=self._storage, direction=sweep.metric.direction, load_if_exists=True
            )
        if "sweep" not in self._study.user_attrs and sweep is not None:
            self._study.set_user_attr("directory", str(place.directory.absolute()))
            self._study.set_user_attr("sweep", sweep.to_json())
        self.sweep = Sweep.from_json(self._study.user_attrs["sweep"])

    def close(self) -> None:
        """Closes the connections to the database; the next use opens new ones."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @patient
    def note_driver(self) -> None:
        """Stores that this process drives the sweep, and on which machine: see :meth:`check_machine`.

        Deaths of workers of an earlier driver do not count any more, so that a whole sweep can be killed and continued
        any number of times.
        """
        self._study.set_user_attr("machine", {"name": platform.node(), "boot": machine()})
        self._study.set_user_attr("driver", self._leases.owner)

    @patient
    def check_machine(self) -> None:
        """Checks that a sweep in SQLite is not run from another machine: its file would be damaged.

        Raises:
          UsageError: The sweep is run from another machine.
        """
        known = self._study.user_attrs.get("machine")
        if self.place.is_local and known is not None and known["boot"] != machine():
            raise UsageError(f"{platform.node()} cannot work on what is run from {known['name']}: {ONE_MACHINE}")

    def extend(self, points: int) -> None:
        """Increases the number of points of the sweep."""
        fields = self.sweep.to_json()
        self._study.set_user_attr("sweep", {**fields, "points": max(points, self.sweep.points)})
        self.sweep = Sweep.from_json(self._study.user_attrs["sweep"])
        self._sampler = Sampler(self.sweep)

    @patient
    def claim(self, most: int = 1) -> list[Trial] | None:
        """Claims trials to run: those that another worker left, or new ones.

        Returns:
          At most ``most`` trials; an empty list if running trials must end first; None if the sweep is finished.
        """
        self._leave_unclaimed()
        claimed: list[Trial] = []
        while len(claimed) < most:
            trials = self._trials()
            unfinished = [trial for trial in trials if not trial.state.is_finished()]
            if self._failure(trials) or (not unfinished and len(trials) >= self.sweep.trials):
                if not claimed:
                    return None
                break
            taken = self._take(unfinished, trials, with_others=bool(claimed))
            if taken is not None:
                claimed.append(taken)
                if _is_suspect(taken.deaths):
                    break
            elif len(trials) >= self.sweep.trials or not self._propose():
                break
        self._claimed.update(_lease(trial.number) for trial in claimed)
        return claimed

    @patient
    def report(self, trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
        """Stores an evaluation of a trial that this process runs; returns whether the trial is pruned.

        The first run of a point decides for all its runs, by the mean of the runs that have done this evaluation.

        Raises:
          LeaseLost: Another worker has taken over the trial.
          UsageError: The sweep's metric is not among the scores.
        """
        value = self.score(scores)
        number = self._trial_id(trial.number)
        if not self._holds(_lease(trial.number)):
            raise LeaseLost
        self._storage.set_trial_intermediate_value(number, evaluation, value)
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

    @patient
    def finish(self, outcome: Outcome) -> bool:
        """Stores the outcome of a trial that this process runs; False if another worker has taken the trial over."""
        name, number = _lease(outcome.number), self._trial_id(outcome.number)
        with contextlib.suppress(self.optuna.exceptions.UpdateFinishedTrialError):  # by an earlier attempt
            for key in ("reason", "seconds"):
                if self._holds(name):
                    self._storage.set_trial_user_attr(number, key, getattr(outcome, key))
            if not self._holds(name):
                self._claimed.discard(name)
                return False
            values = None if outcome.score is None else [outcome.score]
            self._storage.set_trial_state_values(number, self._state(outcome.state), values)
        self._leases.give_back(name)
        self._claimed.discard(name)
        return True

    @patient
    def give_back(self, trial: Trial) -> None:
        """Releases a trial that this process has started, so that any worker can continue it."""
        self._leave(trial.number)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """A context in which this process sends heartbeats, so that it keeps its trials."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with contextlib.suppress(Exception):  # the database may be unavailable; the next beat tries again
                    self._leases.beat()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @patient
    def begun(self) -> int:
        """The number of starts of trials, including those after a worker's death; shows whether workers can run."""
        trials, waiting = self._trials(), self.optuna.trial.TrialState.WAITING
        deaths = sum(trial.user_attrs.get("deaths", {"all": 0})["all"] for trial in trials)
        return deaths + sum(trial.state != waiting for trial in trials)

    @patient
    def rows(self) -> list[TrialRow]:
        """The table of all proposed trials."""
        return with_spreads(self._rows(self._trials()))

    @patient
    def running(self) -> list[Running]:
        """The running trials."""
        trials = [trial for trial in self._trials() if not trial.state.is_finished()]
        now = datetime.datetime.now()
        found = []
        for trial, row in zip(trials, self._rows(trials), strict=True):
            if row.state == "running":
                evaluation, score = max(trial.intermediate_values.items(), default=(0, None))
                seconds = (now - (trial.datetime_start or now)).total_seconds()
                found.append(Running(row, seconds, evaluation, score))
        return found

    @patient
    def failure(self) -> str | None:
        """The reason why all of the first trials failed, if it is the same: it ends the sweep. None otherwise."""
        return self._failure(self._trials())

    def score(self, scores: Mapping[str, float]) -> float:
        """The sweep's metric among some scores.

        Raises:
          UsageError: The metric is not among the scores.
        """
        metric = self.sweep.metric.name
        if metric not in scores:
            raise UsageError(f"--metric={metric} is not among the scores; {nearest(metric, scores)}")
        return float(scores[metric])

    def _leave(self, number: int) -> None:
        name, key = _lease(number), self._trial_id(number)
        if self._holds(name):
            with contextlib.suppress(self.optuna.exceptions.UpdateFinishedTrialError):
                self._storage.set_trial_state_values(key, self.optuna.trial.TrialState.WAITING)
            self._leases.give_back(name)
        self._claimed.discard(name)

    def _leave_unclaimed(self) -> None:
        """Releases trials that this process holds but does not run, which happens if a claim was interrupted."""
        lost = self._leases.held() - self._claimed
        for trial in self._trials() if lost else ():
            if _lease(trial.number) in lost:
                self._leave(trial.number)

    def _holds(self, name: str) -> bool:
        """Whether this process holds a lease. If so, it keeps the lease until Optuna's next call has committed.

        Optuna continues the transaction of its scoped session, so a process that was paused, and has lost the lease
        meanwhile, cannot write.
        """
        return self._leases.holds(name, self._storage.scoped_session())

    def _trials(self) -> list["optuna.trial.FrozenTrial"]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _state(self, state: State) -> "optuna.trial.TrialState":
        states = self.optuna.trial.TrialState
        return {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]

    def _rows(self, trials: Sequence["optuna.trial.FrozenTrial"]) -> list[TrialRow]:
        unfinished = [_lease(trial.number) for trial in trials if not trial.state.is_finished()]
        free = set(self._leases.free(unfinished)) if unfinished else set()
        names: dict[Any, State] = {self._state(state): state for state in ("complete", "pruned", "failed")}
        return [
            TrialRow(
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
        self,
        unfinished: Sequence["optuna.trial.FrozenTrial"],
        trials: Sequence["optuna.trial.FrozenTrial"],
        *,
        with_others: bool,
    ) -> Trial | None:
        """Starts the first trial that no worker runs; with others, only one on which few workers have died."""
        free = set(self._leases.free([_lease(trial.number) for trial in unfinished])) if unfinished else set()
        for candidate in unfinished:
            name = _lease(candidate.number)
            if name not in free or not self._leases.take(name):
                continue
            frozen = self._storage.get_trial(self._trial_id(candidate.number))
            trial = self._as_trial(frozen)
            if frozen.state.is_finished():
                self._leases.give_back(name)
                continue
            trial = dataclasses.replace(trial, deaths=self._deaths(frozen, trial))
            if trials[trial.point * self.sweep.seeds].state == self.optuna.trial.TrialState.PRUNED:
                self.finish(Outcome(trial.number, "pruned", reason="pruned together with the other runs of its point"))
            elif trial.deaths >= _MOST_DEATHS:
                reason = f"its process ended {_MOST_DEATHS} times at the same place (out of memory?)"
                self.finish(Outcome(trial.number, "failed", reason=reason))
            elif with_others and _is_suspect(trial.deaths):
                self._leave(trial.number)
            else:
                if frozen.state == self.optuna.trial.TrialState.WAITING:
                    running = self.optuna.trial.TrialState.RUNNING
                    self._storage.set_trial_state_values(self._trial_id(frozen.number), running)
                return trial
        return None

    def _as_trial(self, frozen: "optuna.trial.FrozenTrial") -> Trial:
        overrides = configs.with_tuples(frozen.user_attrs["overrides"])
        config = schema.override(self.sweep.config, overrides)
        workdir = trial_directory(self.place.directory, frozen.number)
        return Trial(frozen.number, overrides, config, workdir, point=frozen.user_attrs["point"])

    def _deaths(self, frozen: "optuna.trial.FrozenTrial", trial: Trial) -> int:
        """How many workers of this driver have died on a trial since its run last made progress."""
        died = frozen.state == self.optuna.trial.TrialState.RUNNING
        known = frozen.user_attrs.get("deaths")
        if not died and known is None:
            return 0
        metrics = trial.workdir / "metrics.jsonl"
        place = metrics.stat().st_size if metrics.exists() else 0
        driver = self._study.user_attrs.get("driver")
        before = known or {"place": -1, "driver": driver, "count": 0, "all": 0}
        goes_on = before["driver"] == driver and place <= before["place"]
        count = (before["count"] if goes_on else 0) + died
        if died:
            farthest = before["place"] if goes_on else place
            deaths = {"place": farthest, "driver": driver, "count": count, "all": before["all"] + 1}
            self._storage.set_trial_user_attr(self._trial_id(trial.number), "deaths", deaths)
        return count

    def _propose(self) -> bool:
        """Adds a point; False if another process is adding one, or if the point depends on unknown results."""
        if not self._leases.take(_PROPOSALS):
            return False
        try:
            trials = self._trials()
            if len(trials) >= self.sweep.trials:
                return True  # another process has added them
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
                if not self._holds(_PROPOSALS):
                    return False
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
        """A new point, or one for which a process that died has added only some of its runs."""
        if begun:
            first = begun[0]
            return Proposal(first.user_attrs["overrides"], first.params, first.distributions, first.system_attrs)
        known = [self._point(trials, number) for number in range(point)] if learns(self.sweep.sampler) else []
        return self._sampler.propose(point, known)

    def _point(self, trials: Sequence["optuna.trial.FrozenTrial"], number: int) -> "optuna.trial.FrozenTrial":
        """All runs of a point as one Optuna trial, whose value is their mean."""
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


def _is_suspect(deaths: int) -> bool:
    """Whether a trial must run alone, since after one more death it has failed."""
    return deaths >= _MOST_DEATHS - 1

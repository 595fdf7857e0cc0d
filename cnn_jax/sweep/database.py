"""The database that the workers of a sweep share: opens it, and waits while it does not respond."""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say
from cnn_jax.sweep.leases import GRACE_SECONDS, METADATA
from cnn_jax.sweep.samplers import load_optuna
from cnn_jax.sweep.settings import SweepPlace, without_password

if TYPE_CHECKING:
    import optuna

_PATIENCE_SECONDS = 600.0  # how long to wait for a database that does not respond
_ATTEMPTS_UNSAID = 5  # attempts, in 3 seconds, before a message says that it does not respond


class StorageError(UsageError):
    """The database of a sweep does not respond or is damaged. The running trial is not the cause."""


class _ConnectionLost(Exception):
    """The connection was lost within a transaction, which may or may not have been committed."""


@runtime_checkable
class _Placed(Protocol):
    @property
    def place(self) -> SweepPlace: ...


_Self = TypeVar("_Self", bound=_Placed)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def patient(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], _Result]:
    """A decorator that repeats a method while the database does not respond. The method must be safe to repeat.

    Raises:
      StorageError: The database does not respond for ten minutes, or is damaged.
    """

    @functools.wraps(method)
    def repeated(self: _Self, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        import sqlalchemy

        end = time.monotonic() + _PATIENCE_SECONDS
        for attempt in range(1_000_000):
            try:
                return method(self, *arguments, **options)
            except (
                sqlalchemy.exc.SQLAlchemyError,
                load_optuna().exceptions.StorageInternalError,
                _ConnectionLost,
            ) as error:
                line = _words(error)
                if not _may_come_back(error, self.place):
                    raise StorageError(_damaged(self.place, line)) from error
                if time.monotonic() > end:
                    raise StorageError(f"{without_password(self.place.url)} does not answer: {line}") from error
                if attempt == _ATTEMPTS_UNSAID:
                    minutes = round(_PATIENCE_SECONDS / 60)
                    url = without_password(self.place.url)
                    say(f"{url} does not answer, waiting for {minutes} minutes at most: {line}", stream=sys.stderr)
                time.sleep(min(0.1 * 2**attempt, 5.0))
        raise AssertionError

    return repeated


def _unwrapped(error: BaseException) -> BaseException:
    """The original error behind an error of Optuna."""
    return error.__cause__ or error if isinstance(error, load_optuna().exceptions.StorageInternalError) else error


def _words(error: BaseException) -> str:
    """The message of the database in one line."""
    cause = _unwrapped(error)
    return " ".join(str(getattr(cause, "orig", None) or cause).split())


def _may_come_back(error: BaseException, place: SweepPlace) -> bool:
    """Whether a database is temporarily unavailable, as opposed to damaged or out of disk space."""
    import sqlalchemy

    error = _unwrapped(error)
    if place.is_local:
        return "locked" in str(error) or "busy" in str(error)
    away = sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.InternalError
    return isinstance(error, (*away, sqlalchemy.exc.TimeoutError, _ConnectionLost))


def _damaged(place: SweepPlace, line: str) -> str:
    if not place.is_local:
        return f"{without_password(place.url)}: {line}"
    import sqlalchemy

    file = sqlalchemy.make_url(place.url).database
    return (
        f"the sweep's database {file} cannot be used ({line}); unless the disk is full or the folder read-only, remove "
        f"{file}* and run the same command again: trials whose runs have ended are not trained again"
    )


def sweeps_in(storage: str) -> list[SweepPlace]:
    """The places of the sweeps that a database holds.

    Raises:
      UsageError: The database cannot be opened.
    """
    optuna = load_optuna()
    opened = open_storage(SweepPlace(Path(), storage))
    names = optuna.get_all_study_names(opened)
    attributes = [optuna.load_study(study_name=name, storage=opened).user_attrs for name in names]
    opened.remove_session()
    opened.engine.dispose()
    return [SweepPlace(Path(found["directory"]), storage) for found in attributes if "sweep" in found]


def open_storage(place: SweepPlace) -> "optuna.storages.RDBStorage":
    """Optuna's storage in the database of a sweep, with the tables that it and the leases need.

    Raises:
      UsageError: The database cannot be opened.
    """
    import sqlalchemy

    optuna, url = load_optuna(), place.url
    # Several processes share the file: each waits for the others' writes.
    options = {"connect_args": {"timeout": 60}} if place.is_local else {"pool_pre_ping": True}
    for attempt in range(5):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            METADATA.create_all(storage.engine)
            break
        except ImportError as error:
            raise UsageError(f"--storage={without_password(url)}: {error} ({error.__cause__})") from error
        except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            # Two processes that make the tables at once: the second finds them made.
            if attempt == 4:
                line = _words(error)
                message = _damaged(place, line) if not place.storage else f"--storage={without_password(url)}: {line}"
                raise StorageError(message) from error
            time.sleep(0.2 * 2**attempt)
        except sqlalchemy.exc.ArgumentError as error:
            fix = "write it as postgresql://user@host/database"
            raise UsageError(f"--storage={without_password(url)}: {' '.join(str(error).split())}; {fix}") from error
        except (optuna.exceptions.OptunaError, RuntimeError) as error:
            raise UsageError(f"--storage={without_password(url)}: {' '.join(str(error).split())}") from error
    if place.is_local:
        sqlalchemy.event.listen(storage.engine, "connect", _write_ahead)
    else:
        sqlalchemy.event.listen(storage.engine, "handle_error", _connection_lost)
    if storage.engine.name == "postgresql":
        sqlalchemy.event.listen(storage.engine, "connect", _end_idle_transactions)
    storage.engine.dispose()  # closes the connections opened so far
    return storage


def _write_ahead(connection: Any, _: object) -> None:
    """Uses SQLite's write-ahead log: readers do not wait, and commits survive a killed process without a disk sync."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _connection_lost(context: Any) -> Exception | None:
    """An error that Optuna does not handle: it would repeat a possibly completed write, and add a trial twice."""
    if context.is_disconnect and not context.is_pre_ping:
        return _ConnectionLost(str(context.original_exception))
    return None


def _end_idle_transactions(connection: Any, _: object) -> None:
    """Limits how long a process that is stopped inside a transaction blocks others: as long as its leases last."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{GRACE_SECONDS:.0f}s'")
    connection.commit()

"""Leases in the sweep's database: which process owns which trial. A lease ends when its owner does.

A lease is taken by a single conditional update, so that only one of several processes gets it, on any database. A lease
that is not released ends with its owner: on the same machine as soon as the process has ended; on another machine when
no heartbeat was received for a while, by the receiver's own clock, so that clocks need not agree. A process that was
paused for that long finds out before it writes anything: see :meth:`Leases.holds`.
"""

import math
import os
import platform
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sql
from sqlalchemy.orm import Session

BEAT_SECONDS = 5.0
GRACE_SECONDS = 40.0  # without a heartbeat for this long, an owner on another machine counts as dead

METADATA = sql.MetaData()
_TABLE = sql.Table(
    "cnn_jax_leases",
    METADATA,
    sql.Column("study", sql.String(512), primary_key=True),
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("owner", sql.String(256), nullable=False),  # empty: released
    sql.Column("beat", sql.Integer, nullable=False),
)


class _Lease(NamedTuple):
    name: str
    owner: str
    beat: int


_COLUMNS = sql.select(*(_TABLE.c[field] for field in _Lease._fields))


class Leases:
    """The leases of one study, for one process.

    Args:
      engine: The SQLAlchemy engine of the database, which has the table of :data:`METADATA`.
      study: The name of the study.
      owner: The name of this process, from :func:`this_process`.
    """

    def __init__(self, engine: sql.Engine, study: str, *, owner: str = "") -> None:
        self.owner = owner or this_process()
        self._engine, self._study = engine, study
        self._received: dict[str, tuple[_Lease, float]] = {}  # last state, and since when
        self._looked = -math.inf

    def free(self, names: Iterable[str]) -> list[str]:
        """The leases among the given ones that no living process holds."""
        held = sql.and_(_TABLE.c.study == self._study, _TABLE.c.owner != "")
        with self._engine.begin() as connection:
            found = {row.name: _Lease(*row) for row in connection.execute(_COLUMNS.where(held))}
        self._expire_heartbeats()
        return [name for name in names if name not in found or self._is_free(found[name])]

    def take(self, name: str) -> bool:
        """Takes a lease if it is free. Returns whether this process holds it."""
        with self._engine.begin() as connection:
            row = connection.execute(_COLUMNS.where(self._at(name))).one_or_none()
        self._expire_heartbeats()
        if row is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(
                        sql.insert(_TABLE).values(study=self._study, name=name, owner=self.owner, beat=0)
                    )
            except sql.exc.IntegrityError:
                return False
            return True
        lease = _Lease(*row)
        if not self._is_free(lease):
            return lease.owner == self.owner
        as_read = sql.and_(self._at(name), _TABLE.c.owner == lease.owner, _TABLE.c.beat == lease.beat)
        with self._engine.begin() as connection:
            change = sql.update(_TABLE).where(as_read).values(owner=self.owner, beat=lease.beat + 1)
            return connection.execute(change).rowcount == 1

    def beat(self) -> None:
        """Writes a heartbeat of this process."""
        with self._engine.begin() as connection:
            connection.execute(sql.update(_TABLE).where(self._own()).values(beat=_TABLE.c.beat + 1))

    def held(self) -> set[str]:
        """The leases that this process holds."""
        with self._engine.begin() as connection:
            return set(connection.execute(sql.select(_TABLE.c.name).where(self._own())).scalars())

    def holds(self, name: str, session: Session) -> bool:
        """Whether this process holds a lease. If so, no other process can take it before the transaction ends."""
        query = sql.select(_TABLE.c.owner).where(self._at(name)).with_for_update()
        if session.execute(query).scalar_one_or_none() == self.owner:
            return True
        session.rollback()
        return False

    def give_back(self, name: str) -> None:
        """Releases a lease if this process holds it."""
        own = sql.and_(self._own(), _TABLE.c.name == name)
        with self._engine.begin() as connection:
            connection.execute(sql.update(_TABLE).where(own).values(owner="", beat=_TABLE.c.beat + 1))

    def _own(self) -> sql.ColumnElement[bool]:
        return sql.and_(_TABLE.c.study == self._study, _TABLE.c.owner == self.owner)

    def _at(self, name: str) -> sql.ColumnElement[bool]:
        return sql.and_(_TABLE.c.study == self._study, _TABLE.c.name == name)

    def _expire_heartbeats(self) -> None:
        """Ignores old heartbeats after a pause, in which the database may have been down and received none."""
        now = time.monotonic()
        if now - self._looked > GRACE_SECONDS / 2:
            self._received.clear()
        self._looked = now

    def _is_free(self, lease: _Lease) -> bool:
        if not lease.owner:
            return True
        if lease.owner == self.owner:
            return False
        machine, _, process = lease.owner.rpartition("/")
        if machine == _machine():
            return not _is_alive(process)
        received, since = self._received.get(lease.name, (None, 0.0))
        if received != lease:
            self._received[lease.name] = lease, time.monotonic()
            return False
        return time.monotonic() - since > GRACE_SECONDS


def this_process() -> str:
    """A unique name of this process: the machine, the process number and the start time."""
    return f"{_machine()}/{os.getpid()}:{_started(os.getpid())}"


def _machine() -> str:
    """The machine since its last start and the container, within which process numbers are unique."""
    try:
        return f"{platform.node()}:{machine()}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()}:{machine()}"


def machine() -> str:
    """The machine since its last start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return f"{uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """The start time of a process in ticks since the machine started; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return "unknown"
    return None if fields[0] in "ZX" else fields[19]


def _is_alive(process: str) -> bool:
    pid, _, started = process.partition(":")
    return _started(int(pid)) == started

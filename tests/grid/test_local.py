"""What the processes of one machine are told and how they are stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from threadpoolctl import threadpool_info

from persona_leakage.domain.cores import cores
from persona_leakage.domain.points import Address
from persona_leakage.grid import compute
from persona_leakage.grid.launch import Processes, Work, compute_apart
from persona_leakage.grid.local import LocalLauncher, job_environments
from persona_leakage.grid.points import Point

GPU, SHARE = "CUDA_VISIBLE_DEVICES", "PERSONA_LEAKAGE_POINTS_AT_ONCE"


def test_jobs_are_dealt_out_to_gpus_in_turn_and_know_how_many_share_one() -> None:
    given = job_environments(5, ["0", "2"])
    assert [one[GPU] for one in given] == ["0", "2", "0", "2", "0"]
    assert {one[SHARE] for one in given} == {"3"}


def test_one_gpu_or_none_is_left_as_it_is() -> None:
    for gpus in ([], ["0"]):
        given = job_environments(3, gpus)
        assert [GPU in one for one in given] == [False] * 3
        assert {one[SHARE] for one in given} == {"3"}


def test_one_job_of_several_gpus_sees_one_and_all_cores() -> None:
    assert job_environments(1, ["0", "1"]) == [{GPU: "0", SHARE: "1"}]


def sleeping(file: Path) -> list[str]:
    return [sys.executable, "-c", f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"]


def wait_for(file: Path) -> int:
    deadline = time.monotonic() + 20
    while not (file.is_file() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(file.read_text())


def test_stopping_ends_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    processes, status = Processes(), []

    def run(name: str) -> None:
        status.append(processes.run(sleeping(tmp_path / name), tmp_path / "log", None, {}))

    thread = threading.Thread(target=run, args=("first",))
    thread.start()
    wait_for(tmp_path / "first")
    processes.stop()
    thread.join(timeout=20)
    run("second")
    assert status == [-15, -15]
    assert not (tmp_path / "second").exists()


def test_a_point_that_fails_without_a_word_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "command", lambda work, point: ["false"])
    address = Address(model="tiny", condition="fr_it", seed=1)
    point = Point("lang_inversion", address, None, None, str(tmp_path), "missing", None, "plan")
    outcome = compute_apart(point, Work(None, None, {}), Processes(), {})
    assert outcome.failed
    assert outcome.tail == ("it failed and said nothing",)


DYING = (
    "import os, sys, time; from persona_leakage.grid.compute import die_with; die_with(int(sys.argv[1])); {}; time.sleep(60)"
)


def test_a_points_process_does_not_outlive_the_one_that_started_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = DYING.format(f"open({str(pid)!r}, 'w').write(str(os.getpid()))")
    code = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    process = psutil.Process(wait_for(pid))
    assert process.is_running()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([process], timeout=10)
    assert not alive


def test_nor_does_it_begin_when_that_one_has_ended_before() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    child = subprocess.run([sys.executable, "-c", DYING.format("pass"), str(ended.pid)], timeout=30, check=False)
    assert child.returncode == -signal.SIGKILL


def test_a_process_that_computes_a_point_watches_the_one_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    monkeypatch.setattr(compute, "die_with", watched.append)
    monkeypatch.setattr(compute, "compute", lambda **_: None)
    monkeypatch.setattr(compute, "configure", lambda: None)
    address = Address(model="tiny", condition="fr_it", seed=1)
    command = Work(None, None, {}).command(Point("lang_inversion", address, None, None, "here", "missing", None, "plan"))

    assert compute.main(*command[3:]) == 0
    assert watched == [os.getpid()]


def blas_threads() -> set[int]:
    """Tell how many threads NumPy's matrix products take in this process."""
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_processes_that_stay_divide_the_cores_of_numpy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with LocalLauncher(Work(None, None, {}), 2 * cores(), keep_engines=True) as launcher:
        assert launcher._pool.submit(blas_threads).result() == {1}

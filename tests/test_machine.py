"""What the machine says of itself, and which number format follows."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from persona_leakage import machine, run_record
from persona_leakage.domain.cores import cores
from persona_leakage.preflight.probes import available_memory_gib

GPU, ISA = "CUDA_VISIBLE_DEVICES", "ONEDNN_MAX_CPU_ISA"
PROCESSORS = {
    "flags : fpu avx2 avx512f avx512_vnni": "float32",
    "flags : fpu avx2": "float32",
    "flags\t\t: fpu avx512f avx512_bf16": "bfloat16",
    "flags : amx_tile amx_bf16": "bfloat16",
    "Features : fp asimd sve": "float32",
    "Features : fp asimd i8mm bf16": "bfloat16",
    "": "float32",
}


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Linux says of the processor, on a machine without a GPU."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", file)
    monkeypatch.setenv(GPU, "")
    monkeypatch.delenv(ISA, raising=False)
    return file


@pytest.mark.parametrize(("line", "dtype"), PROCESSORS.items())
def test_the_format_is_the_one_that_the_processor_has_instructions_for(cpuinfo: Path, line: str, dtype: str) -> None:
    cpuinfo.write_text(f"processor : 0\nmodel name : A\n{line}\n" if line else "")
    assert machine.fast_dtype("cpu") == dtype
    assert machine.fast_dtype("auto") == dtype


def test_where_linux_says_nothing_it_is_float32(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert machine.fast_dtype("cpu") == "float32"


@pytest.mark.parametrize(("limit", "dtype"), [("AVX512_CORE", "float32"), ("avx2", "float32"), ("AVX512_CORE_AMX", "bfloat16")])
def test_instructions_that_one_dnn_may_not_use_do_not_count(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch, limit: str, dtype: str
) -> None:
    cpuinfo.write_text("flags : avx512_bf16 amx_bf16\n")
    monkeypatch.setenv(ISA, limit)
    assert machine.fast_dtype("cpu") == dtype


def test_a_gpu_computes_in_bfloat16_unless_the_processor_is_asked_for(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo.write_text("flags : avx2\n")
    monkeypatch.setenv(GPU, "0")
    assert [machine.fast_dtype(device) for device in ("auto", "cuda:0", "cpu")] == ["bfloat16", "bfloat16", "float32"]


def test_gpus_that_are_named_are_those_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPU, "3,GPU-1f")
    assert machine.visible_gpus() == ["3", "GPU-1f"]
    monkeypatch.setenv(GPU, "")
    assert machine.visible_gpus() == []


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(cpu_affinity=lambda: [1, 4, 5]))
    assert cores() == 3
    monkeypatch.setattr(psutil, "Process", SimpleNamespace)  # macOS binds no process to a core
    assert cores() == psutil.cpu_count()


@pytest.mark.parametrize(("system", "told"), [("linux", 3 * 2**20), ("darwin", 3 * 2**30)])
def test_peak_memory_is_in_gib_whatever_the_system_counts_in(monkeypatch: pytest.MonkeyPatch, system: str, told: int) -> None:
    monkeypatch.setattr(run_record.sys, "platform", system)
    monkeypatch.setattr(run_record.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=told))
    assert run_record.peak_rss_gib() == 3


def test_memory_for_new_processes_is_less_than_the_machine_has() -> None:
    assert 0 < available_memory_gib() < psutil.virtual_memory().total / 2**30


def test_nothing_of_linux_alone_is_called_outside_one_place() -> None:
    """The flags of a processor stand in /proc alone, and are read where they are; nothing else needs Linux."""
    source = Path(machine.__file__).parent
    found = {
        file.name
        for file in source.rglob("*.py")
        for word in ("/proc", "sched_", "prctl", "preexec_fn")
        if word in file.read_text()
    }
    assert found == {"machine.py"}

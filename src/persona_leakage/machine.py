"""The machine that this process runs on: its processor, its GPUs, and the number format that it computes fastest in."""

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Literal

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_CPUINFO = Path("/proc/cpuinfo")
# as Linux names them, on x86 and on Arm
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
# what ONEDNN_MAX_CPU_ISA may say and still leaves them in use
_WITH_BFLOAT16 = ("", "DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


def processor() -> str:
    """Name the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES knows them by."""
    if (named := os.environ.get(VISIBLE_GPUS)) is not None:
        return [name for name in named.split(",") if name]
    return list(_installed_gpus())


@functools.cache
def _installed_gpus() -> tuple[str, ...]:
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    except OSError:
        return ()
    return tuple(done.stdout.split()) if done.returncode == 0 else ()


def computes_on_gpu(device: str) -> bool:
    """Tell whether `auto`, `cpu` or `cuda` is a GPU here."""
    return device.startswith("cuda") or (device == "auto" and bool(visible_gpus()))


def fast_dtype(device: str) -> Literal["bfloat16", "float32"]:
    """Name the number format to compute in on a device: `auto` (a GPU where there is one), `cpu` or `cuda`.

    A processor without instructions for bfloat16 takes 2.5 times as long in it as in float32 (docs/performance.md).
    """
    return "bfloat16" if computes_on_gpu(device) or computes_bfloat16() else "float32"


def computes_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16 that oneDNN may use; only Linux says."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    flags = f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split()
    return not _BFLOAT16.isdisjoint(flags) and (allowed in _WITH_BFLOAT16 or allowed.startswith("AVX10"))


def _cpuinfo(key: str) -> str:
    """Read what Linux says of the first core; blank where it does not."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")

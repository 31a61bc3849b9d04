"""How many cores there are to compute on."""

import psutil


def cores() -> int:
    """Count the cores that this process may use; all of them where the system does not bind processes to cores."""
    process = psutil.Process()
    return len(process.cpu_affinity() or ()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1

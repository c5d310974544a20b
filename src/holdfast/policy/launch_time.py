"""How long an engine may take to start: what a slow disk needs for the weights, and what it does besides.

    start_s = base + bytes / 0.5 GB/s, at most 3600 s         base: 180 s on CPU, 600 s on GPUs

671 GB over eight GPUs are ready after 8 to 15 minutes where the disk gives 2 GB/s or more; here they get 33. A limit that is too
long costs nothing while the log shows progress, one that is too short costs every start. vLLM's own recipe for V4.1 waits 3600 s.
"""

DISK_BYTES_PER_S = 0.5e9
BASE_CPU_S, BASE_GPU_S, LONGEST_S = 180.0, 600.0, 3600.0


def start_s(weights_bytes: int, on_gpus: bool) -> float:
    """Seconds until it counts as not started."""
    base = BASE_GPU_S if on_gpus else BASE_CPU_S
    return round(min(LONGEST_S, base + weights_bytes / DISK_BYTES_PER_S))

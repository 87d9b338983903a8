"""Brings the probes' maps back to what they were when they were made, while nothing is armed. Runs in the loader."""

from __future__ import annotations

import sys

from .map_calls import map_delete, map_info, map_keys, map_update

# linux/bpf.h: enum bpf_map_type
HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH = 1, 2, 5, 6, 9, 10
HASHES = (HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH)
PER_CPU = (PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH)
# What is known of threads: places that each keeps for its life, and verdicts of an epoch that does not come again.
KEPT = ("THREADS", "THREADS_MORE", "OWNERS")


def reset_maps(fds: dict[str, int], n_cpus: int) -> None:
    """Empty every hash and zero every array, but for those of KEPT. fds: {map: descriptor}. Raises OSError."""
    for name, fd in fds.items():
        info = map_info(fd)
        if name in KEPT:
            continue
        if info.type in HASHES:
            for key in list(map_keys(fd, info.key_bytes)):
                map_delete(fd, key)
        elif info.type in (ARRAY, PERCPU_ARRAY):
            zero = bytes(-(-info.value_bytes // 8) * 8 * n_cpus if info.type in PER_CPU else info.value_bytes)
            for number in range(info.max_entries):
                map_update(fd, number.to_bytes(4, sys.byteorder), zero)

"""The shared layouts as numpy dtypes, and the tables of counters, syscalls and attribute names."""

import numpy as np

RECORD_DTYPE: np.dtype[np.void]
SPAN_DTYPE: np.dtype[np.void]
ATTRIBUTE_DTYPE: np.dtype[np.void]
CONFIG_DTYPE: np.dtype[np.void]
SOCKET_INFO_DTYPE: np.dtype[np.void]
SIZEOFS: dict[str, int]
COUNTER_ROWS: tuple[tuple[int, str, str, str, str], ...]
ATTRIBUTE_ROWS: tuple[tuple[int, str, str, str], ...]
SYSCALL_ROWS: tuple[tuple[int, str, str], ...]
SPAN_FLAGS: dict[str, int]
SPAN_KINDS: dict[int, str]
SPAN_STATUSES: dict[int, str]
SEQ_SPACES: dict[int, str]

def layout_hash(dtype: np.dtype[np.void]) -> str: ...

"""The shared layouts as numpy dtypes, and the tables of counters, syscalls and attribute names."""

import numpy as np

RECORD_DTYPE: np.dtype[np.void]
SPAN_DTYPE: np.dtype[np.void]
ATTRIBUTE_DTYPE: np.dtype[np.void]
CONFIG_DTYPE: np.dtype[np.void]
LIMIT_DTYPE: np.dtype[np.void]
THREAD_DTYPE: np.dtype[np.void]
PROCESS_DTYPE: np.dtype[np.void]
LOG_DTYPE: np.dtype[np.void]
BATCH_DTYPE: np.dtype[np.void]
COUNTS_DTYPE: np.dtype[np.void]
FILE_ID_DTYPE: np.dtype[np.void]
DTYPES: dict[str, np.dtype[np.void]]
SIZEOFS: dict[str, int]
KIND_DATA: int
KIND_CONN: int
KIND_PROC: int
KIND_LOG: int
PID_TRACE: int
PID_DENY: int
PID_FOLLOW: int
LIMIT_EVERY: int
LIMIT_DEFAULT: int
LIMIT_MUTE: int
RULES_COMM: int
RULES_EXE: int
RULES_CGROUP: int
RULES_PORT: int
RULES_ALLOW_PROCESS: int
RULES_ALLOW_PORT: int
RULE_ALLOW: int
RULE_DENY: int
CALL_BLOCKED: int
LOG_ERROR: int
LOG_WARNING: int
LOG_INFO: int
LOG_DEBUG: int
MAX_PAYLOAD: int
BATCH_BYTES: int
RECORD_FLAGS: dict[str, int]
COUNTER_ROWS: tuple[tuple[int, str, str, str, str], ...]
ATTRIBUTE_ROWS: tuple[tuple[int, str, str, str], ...]
SYSCALL_ROWS: tuple[tuple[int, str, str], ...]
SPAN_FLAGS: dict[str, int]
SPAN_KINDS: dict[int, str]
SPAN_STATUSES: dict[int, str]
SEQ_SPACES: dict[int, str]

def layout_hash(dtype: np.dtype[np.void]) -> str: ...

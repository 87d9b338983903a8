"""Record layouts that describe themselves by field names: one version reads another's. Knows no file and no meaning."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from deeptrace.errors import CaptureError

MAX_FIELDS = 256  # the record has 24; more is a damaged description
MAX_RECORD_BYTES = 4096  # of one fixed record header; today's has 128


class FieldInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a stored record. name: dotted for nested structs; type: numpy type string; shape: () for a scalar."""

    name: str
    type: str
    offset: int
    shape: list[int] = []


def describe_dtype(dtype: np.dtype[Any], prefix: str = "", base: int = 0) -> list[FieldInfo]:
    """The fields of a structured dtype by offset, nested ones under dotted names."""
    fields: list[FieldInfo] = []
    for name, entry in (dtype.fields or {}).items():
        kind, offset = entry[0], base + entry[1]
        if kind.fields is not None:
            fields += describe_dtype(kind, f"{prefix}{name}.", offset)
        else:
            fields.append(FieldInfo(name=prefix + name, type=kind.base.str, offset=offset, shape=list(kind.shape)))
    return sorted(fields, key=lambda field: field.offset)


def stored_dtype(fields: list[FieldInfo], size: int) -> np.dtype[np.void]:
    """The flat dtype of a description. Raises CaptureError for one that cannot be."""
    if not fields or len(fields) > MAX_FIELDS or not 0 < size <= MAX_RECORD_BYTES:
        raise CaptureError("the description of its records makes no sense")
    try:
        formats = [_scalar(field) for field in fields]
        return np.dtype(
            {
                "names": [field.name for field in fields],
                "formats": formats,
                "offsets": [field.offset for field in fields],
                "itemsize": size,
            }
        )
    except (TypeError, ValueError, OverflowError) as e:
        raise CaptureError(f"the description of its records makes no sense: {e}") from e


def _scalar(field: FieldInfo) -> Any:
    kind = np.dtype(field.type)
    if kind.kind not in "uif" or field.offset < 0:  # never objects: a description is input
        raise ValueError(f"field {field.name!r} has type {field.type!r}")
    return (kind, tuple(field.shape)) if field.shape else kind


def convert_records(stored: npt.NDArray[np.void], dtype: np.dtype[np.void]) -> tuple[npt.NDArray[np.void], list[str], list[str]]:
    """Copy records into `dtype` by field name. Returns (records, names skipped, names missing and zero).

    Raises CaptureError when a field of the same name has another type: then its meaning may differ too."""
    records = np.zeros(len(stored), dtype)
    wanted = {field.name: field for field in describe_dtype(dtype)}
    found = {field.name: field for field in describe_dtype(stored.dtype)}
    for name in wanted.keys() & found.keys():
        if (found[name].type, found[name].shape) != (wanted[name].type, wanted[name].shape):
            raise CaptureError(f"field {name!r} of its records has type {found[name].type}, here it has {wanted[name].type}")
        _column(records, name)[...] = _column(stored, name)
    return records, [name for name in found if name not in wanted], [name for name in wanted if name not in found]


def _column(records: npt.NDArray[np.void], name: str) -> Any:
    """A field by its dotted name, whether it is nested or flat."""
    column: Any = records
    for part in [name] if name in (records.dtype.names or ()) else name.split("."):
        column = column[part]
    return column

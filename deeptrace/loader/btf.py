"""Looks up where the running kernel keeps the fields that the probes read, through libbpf's BTF functions.
Follows anonymous structs and nested names; knows no bit fields."""

from __future__ import annotations

import ctypes
import dataclasses
import pathlib
import re

from .failure import LoadFailure

BTF_FILE = "/sys/kernel/btf/vmlinux"
OFFSET_LINE = re.compile(
    r"^DT_OFFSET(?P<optional>_OPTIONAL)?\(\s*(?P<name>\w+),\s*(?P<struct>\w+),\s*(?P<path>[\w.]+)\s*\)", re.MULTILINE
)
TYPE_LINE = re.compile(r"^DT_TYPE\(\s*(?P<name>\w+),\s*(?P<struct>\w+)\s*\)", re.MULTILINE)
ARGUMENTS_LINE = re.compile(r"^DT_ARGUMENTS\(\s*(?P<name>\w+),\s*(?P<tracepoint>\w+)\s*\)", re.MULTILINE)
CAST_FUNCTION = "bpf_rdonly_cast"  # since Linux 6.2
# linux/btf.h
KIND_STRUCT, KIND_UNION, KIND_TYPEDEF, KIND_FUNCTION = 4, 5, 8, 12
SKIPPED_KINDS = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag: names for another type
MAX_DEPTH = 8  # anonymous structs inside one another; sock_common has 2


class BtfType(ctypes.Structure):
    """struct btf_type: followed in memory by its members."""

    _fields_ = (("name_off", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size_or_type", ctypes.c_uint32))

    @property
    def kind(self) -> int:
        return int(self.info >> 24 & 0x1F)

    @property
    def member_count(self) -> int:
        return int(self.info & 0xFFFF)


class BtfMember(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class KernelTypes:
    """The running kernel's types. Close it: the parsed BTF takes several MB."""

    def __init__(self) -> None:
        if not pathlib.Path(BTF_FILE).exists():
            raise LoadFailure(
                f"this kernel offers no BTF at {BTF_FILE}; use a kernel built with CONFIG_DEBUG_INFO_BTF=y (every Debian, Ubuntu "
                "and RHEL kernel since 2020 is)"
            )
        try:
            self._lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError:
            raise LoadFailure("libbpf.so.1 is not installed; run 'apt-get install libbpf1'") from None
        for name, result, arguments in (
            ("btf__load_vmlinux_btf", ctypes.c_void_p, ()),
            ("btf__find_by_name_kind", ctypes.c_int32, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)),
            ("btf__type_by_id", ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_uint32)),
            ("btf__name_by_offset", ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_uint32)),
            ("btf__free", None, (ctypes.c_void_p,)),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._btf = self._lib.btf__load_vmlinux_btf()
        if not self._btf:
            raise LoadFailure(f"libbpf cannot read this kernel's BTF at {BTF_FILE}; install a newer libbpf1")

    def close(self) -> None:
        self._lib.btf__free(self._btf)

    def _type(self, number: int) -> tuple[BtfType, int]:
        address = self._lib.btf__type_by_id(self._btf, number)
        return BtfType.from_address(address), address

    def _resolve(self, number: int) -> int:
        """The struct or union behind typedefs and qualifiers."""
        for _ in range(MAX_DEPTH):
            kind_of, _address = self._type(number)
            if kind_of.kind not in SKIPPED_KINDS:
                break
            number = kind_of.size_or_type
        return number

    def _member(self, number: int, name: bytes, depth: int = 0) -> tuple[int, int] | None:
        """(offset in bytes, type) of a member, also one inside anonymous structs; None if there is none."""
        kind_of, address = self._type(number)
        if kind_of.kind not in (KIND_STRUCT, KIND_UNION) or depth > MAX_DEPTH:
            return None
        members = (BtfMember * kind_of.member_count).from_address(address + ctypes.sizeof(BtfType))
        for member in members:
            offset = (member.offset & 0xFFFFFF) // 8 if kind_of.info >> 31 else member.offset // 8
            member_name = self._lib.btf__name_by_offset(self._btf, member.name_off)
            if member_name == name:
                return offset, self._resolve(member.type)
            if not member_name:
                inner = self._member(self._resolve(member.type), name, depth + 1)
                if inner is not None:
                    return offset + inner[0], inner[1]
        return None

    def number(self, name: str, kind: int) -> int | None:
        """The number of a named type; None if this kernel has none."""
        found = int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))
        return found if found > 0 else None

    def arguments(self, tracepoint: str) -> int:
        """How many arguments a raw tracepoint has; 0 if this kernel has none of that name."""
        number = self.number("btf_trace_" + tracepoint, KIND_TYPEDEF)
        if number is None:
            return 0
        pointer, _address = self._type(self._type(number)[0].size_or_type)
        return self._type(pointer.size_or_type)[0].member_count - 1  # the first one is the kernel's own

    def offset(self, struct: str, path: str) -> int | None:
        """Offset in bytes of a field such as ("net", "ns.inum"); None if this kernel has no such field."""
        number = self.number(struct, KIND_STRUCT)
        if number is None:
            return None
        total = 0
        for name in path.split("."):
            found = self._member(number, name.encode())
            if found is None:
                return None
            total, number = total + found[0], found[1]
        return total


def kernel_offsets(bpf: pathlib.Path) -> dict[str, int]:
    """{name: bytes} for every line of offsets.def. Raises LoadFailure naming the field that this kernel lacks."""
    types = KernelTypes()
    try:
        offsets: dict[str, int] = {}
        for line in OFFSET_LINE.finditer((bpf / "include" / "offsets.def").read_text(encoding="utf-8")):
            offset = types.offset(line["struct"], line["path"])
            if offset is not None:
                offsets[line["name"]] = offset
            elif not line["optional"]:
                field = f"struct {line['struct']}.{line['path']}"
                raise LoadFailure(f"this kernel's BTF has no field {field}; report it with the output of 'uname -r'")
        return offsets
    finally:
        types.close()


def tracepoint_arguments(bpf: pathlib.Path) -> dict[str, int]:
    """{name: number} for every line of tracepoints.def."""
    types = KernelTypes()
    try:
        lines = ARGUMENTS_LINE.finditer((bpf / "include" / "tracepoints.def").read_text(encoding="utf-8"))
        return {line["name"]: types.arguments(line["tracepoint"]) for line in lines}
    finally:
        types.close()


@dataclasses.dataclass(frozen=True)
class TypeNumbers:
    """What typed loads need: the number of the kernel's cast function, and {name: number} for every line of types.def."""

    cast: int
    types: dict[str, int]


def kernel_types(bpf: pathlib.Path) -> TypeNumbers | None:
    """None where this kernel offers no casts."""
    types = KernelTypes()
    try:
        cast = types.number(CAST_FUNCTION, KIND_FUNCTION)
        lines = TYPE_LINE.finditer((bpf / "include" / "types.def").read_text(encoding="utf-8"))
        numbers = {line["name"]: types.number(line["struct"], KIND_STRUCT) for line in lines}
        known = {name: number for name, number in numbers.items() if number is not None}
        return TypeNumbers(cast, known) if cast is not None and len(known) == len(numbers) else None
    finally:
        types.close()

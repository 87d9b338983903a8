"""What is measured: the calls, the sizes, the names of the rows, and the figures that they are compared with."""

from dataclasses import dataclass

from .states import MEASURED, SETTINGS

AGENT = tuple(SETTINGS)
ALONE = ("devnull", "pipe", "eagain", "getppid")  # calls that carry no message of a connection
VECTORS = ("recvmmsg8", "sendmmsg8")  # with 8 messages a call; figures are per message
SMALL, EXTRACT = 64, 256
BIG = (1024, 16384)
BUDGET_NS = {SMALL: 15e6, EXTRACT: 15e6, 1024: 12e6, 16384: 12e6}  # of one measurement
QUICK_BUDGET = 0.6  # of the above


@dataclass(frozen=True)
class Cell:
    """One call with one size."""

    call: str
    size: int

    def row(self, state: str) -> str:
        """The name of its row: without a size it means 64 B."""
        if self.call == "getppid":
            return "getppid.floor" if state == "floor" else "getppid.any"
        if self.call in ALONE:
            state = "traced" if state == "traced1024" else state
        return f"{self.call}.{state}" + (f".{self.size}" if self.size != SMALL else "")

    def is_read(self) -> bool:
        return self.call.startswith(("read", "recv"))


def cells(*, quick: bool) -> list[Cell]:
    """In the order of the table. quick: 64 B, and one call of each direction with 16 KiB."""
    everywhere = [Cell(call, SMALL) for call in (*MEASURED, *VECTORS, *ALONE)]
    extract = [Cell(call, EXTRACT) for call in ("read", "write")]
    big = [Cell(call, 16384) for call in ("read", "write")] if quick else []
    if not quick:
        big = [Cell(call, size) for size in BIG for call in (*MEASURED, *VECTORS)]
    return everywhere + extract + big


def states_of(cell: Cell) -> tuple[str, ...]:
    """The states in which a cell is measured, `none` and `floor` aside."""
    if cell.size == EXTRACT:
        return ("traced0", "traced256")
    if cell.call == "getppid":
        return ("traced1024",)
    if cell.call in ALONE:
        return ("filtered", "traced1024")
    return AGENT


@dataclass(frozen=True)
class Reference:
    """A figure to compare with. limit: "ns" or "ratio", what of the row it stands beside; kind: must, or published by others."""

    figure: float
    limit: str = "ns"
    kind: str = "must"

    def meaning(self) -> str:
        of = "ratio to the floor" if self.limit == "ratio" else "value"
        return f"{of} at most" if self.kind == "must" else f"{of}, {self.kind}"


# What the project has promised, and what the first publication of the design has measured ("published").
MUST_NS, MUST_MSGHDR_NS = 440.0, 520.0  # on a machine whose floor is 108 ns; the ratio travels better
PUBLISHED_NS, PUBLISHED_RECVMSG_NS, CARD_NS = 2500.0, 7157.0, 2000.0
DESIGN = {
    "ten.traced256": Reference(4.2, "ratio"),
    "ten.filtered": Reference(1.4, "ratio"),
    "devnull.traced": Reference(2.0, "ratio"),
    "pipe.traced": Reference(2.0, "ratio"),
    "eagain.traced": Reference(2.0, "ratio"),
    "getppid.any": Reference(15.0),
    "interception": Reference(CARD_NS, kind="published"),
    "extract.256": Reference(100.0),
    "inference": Reference(500.0, kind="published"),
    "map.op": Reference(60.0),
    "wakeups_per_s": Reference(1000.0),
}


def reference_of(name: str) -> Reference | None:
    """What to compare a row with; None where nothing was promised or published."""
    if name in DESIGN:
        return DESIGN[name]
    call, _, rest = name.partition(".")
    state, _, size = rest.partition(".")
    if state == "filtered":
        return Reference(2.0, "ratio")
    if state == "traced256" and not size and call in MEASURED:
        return Reference(MUST_MSGHDR_NS if call in ("sendmsg", "recvmsg") else MUST_NS)
    if state in ("traced0", "traced256", "traced1024") and call in MEASURED:
        return Reference(PUBLISHED_RECVMSG_NS if call == "recvmsg" else PUBLISHED_NS, kind="published")
    return None

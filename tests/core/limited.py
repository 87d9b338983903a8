"""Probes that capture as little as they are told: what they give to a pipeline depends on what it asks of them."""

from core_traffic import EGRESS, Connection, Run, Traffic

DEFAULT, MUTE = 0xFFFFFFFF, 0xFFFFFFFE
PAYLOAD, HEAD, MOST = 1024, 4096, 16384


class LimitedRun(Run):
    """A pipeline with feedback. play() gives it what the probes emit of one call; wishes are followed as the probes do it."""

    def __init__(self, *, follows: bool = True, **settings: object) -> None:
        settings.setdefault("payload_bytes", PAYLOAD)
        settings.setdefault("payload_max_bytes", MOST)
        super().__init__(**settings)
        self.traffic = Traffic()
        self.follows = follows
        self.limits: dict[int, int] = {}
        self.wishes: list[tuple[int, int, int, int]] = []
        self.muted_bytes = 0
        self._heads: dict[tuple[int, int], int] = {}
        self._fed = 0

    def play(self, end: Connection, direction: int, data: bytes, *, at: int, tid: int | None = None, flags: int = 0) -> None:
        limit = self.limits.get(end.socket, DEFAULT)
        head = self._heads.get((end.socket, direction), HEAD)
        self._heads[end.socket, direction] = max(0, head - len(data))
        if limit == MUTE:
            end.move(direction, data, at=at, tid=tid, lost=True)
            self.muted_bytes += len(data)
            return
        captured = min(len(data), max(head, PAYLOAD if limit == DEFAULT else limit), MOST)
        end.move(direction, data, at=at, tid=tid, captured=captured, flags=flags)
        self.feed(self.traffic, first=self._fed)
        self._fed = len(self.traffic.rows)
        self.ask()

    def ask(self) -> list[tuple[int, int, int, int]]:
        """Take what is asked of the probes, and follow it."""
        new = [tuple(int(v) for v in row) for row in self.pipeline.take_limits()]
        self.wishes += new
        for socket, limit, _, _ in new:
            if self.follows:
                self.limits[(socket - 0xFFFF000000000000) // 64] = limit
        return new

    def exchange(self, end: Connection, ask: bytes, answer: bytes, *, at: int, calls: int = 1 << 30) -> int:
        """A request and its response at one end, moved by calls of at most so many bytes; returns the time after it."""
        asks = EGRESS if end.local_port != 80 and end.local_port != 6379 else 1 - EGRESS
        for direction, data in ((asks, ask), (1 - asks, answer)):
            for first in range(0, len(data), calls):
                self.play(end, direction, data[first : first + calls], at=at)
                at += 10_000
        return at

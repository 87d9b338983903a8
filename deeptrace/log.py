"""Structured logs: one JSON object or one readable line per event, to stderr. Never given payload or attribute values."""

import json
import logging
import sys
import time

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by number of -v


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(
            {
                "ts": record.created,
                "level": record.levelname.lower(),
                "logger": record.name,
                "msg": record.getMessage(),
                **fields,
            }
        )


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {k}={v}" for k, v in getattr(record, "fields", {}).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():7} {record.name.removeprefix('deeptrace.')}: {record.getMessage()}{fields}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def setup_logging(verbosity: int = 0, *, as_json: bool = False) -> None:
    """Send the logs of deeptrace.* to stderr. verbosity: 0 warnings, 1 info, 2 and more debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    logging.raiseExceptions = False  # a closed stderr loses the line; it must not print a traceback of its own
    logger = logging.getLogger("deeptrace")
    logger.handlers[:] = [handler]
    logger.setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])
    logger.propagate = False


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log one event with named fields."""
    logger.log(level, message, extra={"fields": fields})

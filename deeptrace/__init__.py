"""DeepTrace: distributed tracing for Linux services without touching their code."""

__version__ = "0.1.0"

"""Runs on the traced host: probes, pipeline, shipping."""

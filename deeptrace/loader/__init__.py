"""Loads the probes in a process of its own; the only importer of bcc. The agent's side of it is loader.client."""

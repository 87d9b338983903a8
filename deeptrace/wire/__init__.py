"""The wire between agent and server, and the record file."""

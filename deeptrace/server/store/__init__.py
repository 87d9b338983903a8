"""The store: one SQL dialect, embedded or cluster."""

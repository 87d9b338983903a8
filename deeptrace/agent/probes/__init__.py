"""The probe programs that the agent runs, one file each."""

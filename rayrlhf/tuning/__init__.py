"""Searches over the options of a run: `rayrlhf tune FILE`. A trial is a run with a folder of its own."""

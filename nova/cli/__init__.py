"""The command `nova`. It speaks to a queue through `TaskQueue` alone; needs the extra `cli`."""

"""One program, five configurations: see `__main__`."""

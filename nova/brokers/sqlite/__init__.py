"""The embedded broker: one SQLite file, any number of threads and processes of one machine."""

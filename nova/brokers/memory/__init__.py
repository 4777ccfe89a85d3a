"""The in-memory broker: for tests and for queues that may die with their process."""

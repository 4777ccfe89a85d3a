"""Nova and its peers measured side by side in one run: `python -m benchmarks`. How and why: docs/performance.md."""

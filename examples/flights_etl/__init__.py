"""Bulk ETL: 336,776 real flight records through a task queue into ClickHouse's engine, exact to the row.

Run it from the root of the checkout with `python -m examples.flights_etl`. README.md in this folder tells what it
shows and how to break it.
"""

"""When a batch is complete."""

from nova.aggregators.base import Accumulator, Aggregator
from nova.aggregators.limits import CountAggregator, TimeAggregator, TimeCountAggregator

__all__ = ["Accumulator", "Aggregator", "CountAggregator", "TimeAggregator", "TimeCountAggregator"]

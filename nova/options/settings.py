"""All options of a queue in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nova.brokers.base import Driver, DriverConfig
from nova.brokers.rocketmq.config import RocketMQConfig
from nova.brokers.sqlite.config import SQLiteConfig
from nova.codecs import Codec, find_codec
from nova.errors import ConfigError
from nova.middleware import Chain
from nova.options.option import Option
from nova.options.queue import DelaySlots, Weights
from nova.retry import ExponentialBackoff, RetryPolicy
from nova.routing import DEFAULT_QUEUE, Topics

__all__ = ["QueueSettings", "settle"]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Everything a `TaskQueue` was built with."""

    driver: DriverConfig | Driver = field(default_factory=SQLiteConfig)
    group_id: str = "TASK_QUEUE_GROUP"
    topic_prefix: str = "TASK_QUEUE"
    codec: Codec = field(default_factory=lambda: find_codec("json"))
    delay_slots: DelaySlots | None = None
    retry: RetryPolicy = field(default_factory=ExponentialBackoff)
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    middleware: Chain = field(default_factory=lambda: Chain(()))
    weights: Weights = field(default_factory=Weights)

    @property
    def topics(self) -> Topics:
        """The topic names under the prefix."""
        return Topics(self.topic_prefix)


def settle(options: Sequence[Option]) -> QueueSettings:
    """One settings object from options.

    Raises:
        ConfigError: no option, or two that set the same.
    """
    chosen: dict[str, Option] = {}
    for option in options:
        if not isinstance(option, Option):
            raise ConfigError(f"TaskQueue: expected options such as with_sqlite(…), got {_shown(option)}")
        other = chosen.get(option.setting)
        if other is not None:
            what = "two drivers" if option.setting == "driver" else f"the {option.setting.replace('_', ' ')} twice"
            raise ConfigError(f"TaskQueue: {what} given, by {other.source}() and {option.source}(); keep one")
        chosen[option.setting] = option
    _map_reconsume_times(chosen)
    return QueueSettings(**{setting: option.value for setting, option in chosen.items()})


def _shown(found: object) -> str:
    """What it is; not what it says, which may be a URL or a mapping with a password."""
    hint = {"str": "; a URL goes to TaskQueue.from_url(…)", "dict": "; a mapping goes to TaskQueue.from_config(…)"}
    return f"{type(found).__name__}{hint.get(type(found).__name__, '')}"


def _map_reconsume_times(chosen: dict[str, Option]) -> None:
    """RocketMQ's word for `max_retries`; Nova retries by itself, so it is the policy that must know."""
    driver = chosen.get("driver")
    if driver is None or not isinstance(driver.value, RocketMQConfig) or driver.value.max_reconsume_times is None:
        return
    if "retry" in chosen:
        raise ConfigError(
            "TaskQueue: the retries twice given, by with_rocketmq(max_reconsume_times=…) and with_retry(); keep one"
        )
    chosen["retry"] = Option("retry", ExponentialBackoff(driver.value.max_reconsume_times), "with_rocketmq")

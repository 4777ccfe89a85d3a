"""A queue's options from a mapping, a TOML file, a URL or the environment.

The options are the `with_…` functions: a section's keys are a function's parameters, read from its signature, so nothing
can be configured that code could not say, and the checks are the same. Each form is read into one mapping, which `sections`
turns into options.
"""

from nova.config.environment import from_environment
from nova.config.files import from_config
from nova.config.urls import from_url

__all__ = ["from_config", "from_environment", "from_url"]

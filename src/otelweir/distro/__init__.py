"""The distribution: entry points of the launcher, and `configure()` for those who do without it."""

from typing import TYPE_CHECKING

from otelweir.faces import lazily

if TYPE_CHECKING:
    from otelweir.distro.configuration import active, configure
    from otelweir.distro.entry_points import WeirConfigurator, WeirDistro, warn_of_other_distributions

__all__ = ["WeirConfigurator", "WeirDistro", "active", "configure", "warn_of_other_distributions"]

# `weir doctor` examines environments in which OpenTelemetry itself cannot be imported.
__getattr__, __dir__ = lazily(
    __name__,
    {
        "WeirConfigurator": "entry_points",
        "WeirDistro": "entry_points",
        "active": "configuration",
        "configure": "configuration",
        "warn_of_other_distributions": "entry_points",
    },
)

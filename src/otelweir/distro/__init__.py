"""The distribution: entry points of the launcher, and `configure()` for those who do without it."""

from otelweir.distro.configuration import active, configure
from otelweir.distro.entry_points import WeirConfigurator, WeirDistro, warn_of_other_distributions

__all__ = ["WeirConfigurator", "WeirDistro", "active", "configure", "warn_of_other_distributions"]

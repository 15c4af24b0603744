"""The FactorTopy operator and its selectors' networks: one public entry each, several implementations that agree."""

# Not lazy: importing the module of the same name would otherwise put itself in the function's place.
from brainkit.ops.factor_readout import available_backends, factor_readout, fastest_backend
from brainkit.ops.selector_networks import selector_networks

__all__ = ["available_backends", "factor_readout", "fastest_backend", "selector_networks"]

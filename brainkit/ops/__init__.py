"""The FactorTopy operator: one public entry, several implementations that give the same numbers."""

# Not lazy: importing the module of the same name would otherwise put itself in the function's place.
from brainkit.ops.factor_readout import available_backends, factor_readout

__all__ = ["available_backends", "factor_readout"]

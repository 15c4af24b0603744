"""The FactorTopy operator and its selector networks: one public function each, with several implementations."""

# Not lazy: importing a submodule of the same name would replace the function in this namespace.
from brainkit.ops.factor_readout import available_backends, factor_readout, fastest_backend
from brainkit.ops.selector_networks import selector_networks

__all__ = ["available_backends", "factor_readout", "fastest_backend", "selector_networks"]

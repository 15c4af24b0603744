"""The names before, until all imports follow."""

from brainkit.backbones.plugin import IN_PYTHON, wrap_network  # noqa: F401
from brainkit.backbones.plugin import backbone_name as name_of  # noqa: F401
from brainkit.backbones.plugin import preserved_state as given_back  # noqa: F401

"""The name before, until all imports follow."""

from brainkit.data.splits import make_joint_splits  # noqa: F401

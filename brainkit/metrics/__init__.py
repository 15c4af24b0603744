"""Measures on arrays: correlation, noise ceilings, scores, intervals, significance. README.md: what is where."""

from brainkit.utils.lazy import lazy_names

_NAMES = {
    "StreamingCorrelation": "brainkit.metrics.correlation",
    "Moments": "brainkit.metrics.moments",
    "NoiseCeiling": "brainkit.metrics.ceilings",
    "noise_ceiling_from_ncsnr": "brainkit.metrics.ceilings",
    "noise_ceiling_from_repetitions": "brainkit.metrics.ceilings",
    "noise_ceiling_from_split_halves": "brainkit.metrics.ceilings",
    "noise_ceiling_from_trials": "brainkit.metrics.ceilings",
    "spearman_brown": "brainkit.metrics.ceilings",
    "LEAST_CEILING": "brainkit.metrics.scores",
    "OfficialScore": "brainkit.metrics.scores",
    "explained_share": "brainkit.metrics.scores",
    "official_score": "brainkit.metrics.scores",
    "bootstrap_weights": "brainkit.metrics.resampling",
    "group_codes": "brainkit.metrics.resampling",
    "interval": "brainkit.metrics.resampling",
    "jackknife_weights": "brainkit.metrics.resampling",
    "weighted_correlations": "brainkit.metrics.resampling",
    "PermutationTest": "brainkit.metrics.permutation",
    "null_correlations": "brainkit.metrics.permutation",
    "permutation_test": "brainkit.metrics.permutation",
    "Comparison": "brainkit.metrics.significance",
    "compare": "brainkit.metrics.significance",
    "false_discovery_rate": "brainkit.metrics.significance",
    "ChannelClusters": "brainkit.metrics.channel_clusters",
    "cluster_channels": "brainkit.metrics.channel_clusters",
    "image_coverage": "brainkit.metrics.coverage",
    "LayerProfile": "brainkit.metrics.layer_profile",
    "layer_profile": "brainkit.metrics.layer_profile",
}

__getattr__, __dir__ = lazy_names(__name__, _NAMES)

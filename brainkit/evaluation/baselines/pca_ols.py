"""Principal components of all tokens, then ordinary least squares: the encoding models that BERG ships.

Gifford and colleagues, Brain Encoding Response Generator: the features of a network, of all layers together, are
reduced to 250 principal components, which predict every vertex by linear regression.
"""

from __future__ import annotations

from brainkit.evaluation.baselines.kernels import Side, TokenKernels
from brainkit.evaluation.baselines.problem import Problem, Result
from brainkit.evaluation.baselines.ridge import all_tokens

COMPONENTS = 250


def pca_ols(problem: Problem, kernels: TokenKernels) -> Result:
    """Regress on the first 250 principal components, or on a quarter as many as there are training images."""
    from sklearn.decomposition import KernelPCA
    from sklearn.linear_model import LinearRegression

    kernel, sides = all_tokens(problem, kernels), Side.of(problem)
    n_train = sides.train.stop
    components = max(1, min(COMPONENTS, n_train // 4))
    pca = KernelPCA(components, kernel="precomputed", random_state=0)
    train = pca.fit_transform(kernel.values[sides.train, sides.train].astype("float64"))
    fitted = LinearRegression().fit(train, problem.targets)
    test = pca.transform(kernel.values[sides.test, sides.train].astype("float64"))
    predictions = (fitted.predict(test) + problem.mean).astype("float32")
    vertices = len(problem.mean)
    parameters = components * (kernel.features + vertices) + vertices
    return Result(predictions, parameters, shared_seconds=kernel.seconds)

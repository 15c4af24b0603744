"""FactorTopy, the encoding model."""

"""Other encoding models of the same data: a file for each family, `catalog` names them all."""

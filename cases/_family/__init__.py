"""The kind `family`: a solver that is set by networks, learned on a family of linear systems."""

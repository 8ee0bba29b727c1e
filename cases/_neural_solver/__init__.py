"""The kind `neural_solver`: a network that takes an equation's start to its state later on."""

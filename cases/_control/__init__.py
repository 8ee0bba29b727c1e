"""The kind `control`: what makes a simulation do as it is told, by gradients through its steps."""

"""The kind `pinn`: a physics-informed network trained on the residuals of an equation."""

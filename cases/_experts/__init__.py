"""The kind `experts`: a network gives a basis, and experts solve an equation with it."""

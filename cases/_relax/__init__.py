"""The kind `relax`: an equation on a grid, whose linear solves are tuned as they go."""

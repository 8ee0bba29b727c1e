"""The kind `simulate`: an equation marched on a grid, and judged by a finer one or the solution."""

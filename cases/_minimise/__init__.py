"""The kind `minimise`: a functional of a field, brought down with and without momentum."""

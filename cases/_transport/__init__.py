"""The kind `transport`: a coupling between two measures."""

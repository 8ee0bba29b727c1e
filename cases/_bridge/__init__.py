"""The kind `bridge`: a Schrödinger bridge between two laws."""

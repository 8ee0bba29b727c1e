"""Measures that a case may name: what it may say of them, and their atoms."""

"""Machines of their own that run out of memory as a whole."""

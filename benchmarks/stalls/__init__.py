"""How long a page of a swap volume takes while others work with names on the same mount.

`reader.c` reads a page each millisecond and times it; `loads.py` is what goes on beside it.
"""

"""What is tested here holds for both kinds of storage."""

from storages import storage

__all__ = ["storage"]

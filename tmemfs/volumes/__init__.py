"""What a file means: cache volumes over a backing directory, and swap volumes."""

"""Pages found and read without the interpreter.

The *store* (``store.c``) has the tables of `tmemfs.tmem.objects` in C, in one mapping with the
arena. `docs/native.md` says what may touch what under which lock.
"""

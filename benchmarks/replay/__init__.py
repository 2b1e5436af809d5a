"""Block traces through the real reclaim code, beside the policies that others use.

A trace says which pages were asked for, in what order; each is got from a pool of the core, and put
there when it misses. Its hit ratio is shown beside that of other policies with as many pages
(`policies`), and beside an uncompressed LRU of as many bytes, which shows what compression adds.
``python -m benchmarks.replay --help``, or ``python -m benchmarks --replay`` with all the rest.
"""

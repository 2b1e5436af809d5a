"""Machines that run out of memory as a whole, with swap on a volume: which of them go on.

Each is a guest of its own under qemu's software emulation, so that one that hangs hurts nobody.
`python -m benchmarks.guest` runs them; `docs/swap-safety.md` has what came of it.
"""

"""The figures of the README, each beside its peers in the same run: ``python -m benchmarks``.

Only ratios are worth comparing between machines, and on a busy one not even the times of one
minute and the next. So everything is measured in short rounds in which every variant has its
turn, a ratio is taken within each round, and the median of the rounds is the figure.
"""

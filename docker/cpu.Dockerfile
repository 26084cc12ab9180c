# Server, background services and CPU workers of docker/compose.yaml: one image, so that they never differ in version.
FROM python:3.11.14-slim-bookworm

RUN apt-get update \
 && apt-get install --yes --no-install-recommends make nodejs npm \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 spaceport && install --directory --owner spaceport /opt/spaceport /var/lib/spaceport
USER spaceport
WORKDIR /opt/spaceport
COPY --chown=spaceport . .
# The state folder of the image holds nothing that a container needs: its server keeps everything in Postgres.
RUN SPACEPORT_HOME=/tmp/spaceport make setup && rm -rf /tmp/spaceport

ENV PATH=/opt/spaceport/.venv/bin:$PATH \
    SPACEPORT_HOME=/var/lib/spaceport \
    PREFECT_HOME=/var/lib/spaceport/prefect

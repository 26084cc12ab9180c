"""Names tell runs apart, and a name that a person typed stays."""

from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.utilities.names import generate_slug

from flows.cli.flow_runs import find_run
from tasks.running.run_folder import is_made_up, name_of_run

PHOTOS = "/captures/north field/images"


def test_names_that_prefect_makes_up_are_known() -> None:
    made = {generate_slug(2) for _ in range(500)}
    assert {name for name in made if not is_made_up(name)} == set()
    for name in (
        "Sleek-Douc",
        "Incredible-Eel",
        "Small-Sea ca",
        "nu6-kuchiki",
        "alpha-canis-majoris-void",
        "omega12-deneb",
    ):
        assert is_made_up(name), name


@pytest.mark.parametrize(
    "name",
    [
        "operator-typed-name",
        "North-Field",
        "fox",
        "fox-2",
        "second try",
        "small-flight-3fa9c2d1",
        "alpha",
        "Large-Flight",
    ],
)
def test_names_that_people_type_are_kept(name: str) -> None:
    assert not is_made_up(name)


@pytest.mark.usefixtures("prefect_server")
def test_runs_of_one_capture_have_names_that_find_them() -> None:
    ids: list[str] = []

    @flow(name="reconstruct", flow_run_name=name_of_run)
    def named(photos: str) -> None:
        ids.append(str(flow_run.id))

    named(PHOTOS)
    named(PHOTOS)
    named.with_options(flow_run_name=name_of_run)(PHOTOS)
    assert len(set(ids)) == 3
    with get_client(sync_client=True) as client:
        for run_id in ids:
            run = client.read_flow_run(UUID(run_id))
            assert run.name == f"north-field-{run_id[:8]}"
            assert find_run(client, run.name).id == run.id


@pytest.mark.usefixtures("prefect_server")
def test_the_name_that_a_person_typed_stays(tmp_path: Path) -> None:
    from prefect.flow_engine import run_flow

    @flow(name="reconstruct", flow_run_name=name_of_run)
    def named(photos: str) -> None:
        pass

    with get_client(sync_client=True) as client:
        runs = [
            client.create_flow_run(named, parameters={"photos": PHOTOS}, name=name)
            for name in ("operator-typed-name", "Sleek-Douc", None)
        ]
        for run in runs:
            run_flow(named, flow_run=run, parameters={"photos": PHOTOS})
        names = [client.read_flow_run(run.id).name for run in runs]
    assert names == ["operator-typed-name", *(f"north-field-{str(run.id)[:8]}" for run in runs[1:])]

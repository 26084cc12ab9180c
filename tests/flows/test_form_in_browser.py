"""The untouched *Run* forms of both of Prefect's UIs send what `form_payloads.json` holds, by a real browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.reconstruct import reconstruct
from tests.deployments.listening import prefect_process
from tests.support.browser import chromium

PAYLOADS = Path(__file__).with_name("form_payloads.json")
PATHS = {"v1": "deployments/deployment", "v2": "v2/deployments/deployment"}
# Keeps what the page posts, by whichever of the browser's two ways.
LISTEN = """
window.posted = [];
const keep = (url, body) => { if (String(url).includes('create_flow_run')) window.posted.push(body); };
const open = XMLHttpRequest.prototype.open, send = XMLHttpRequest.prototype.send, get = window.fetch;
XMLHttpRequest.prototype.open = function (method, url, ...rest) {
  this.address = url;
  return open.call(this, method, url, ...rest);
};
XMLHttpRequest.prototype.send = function (body) { keep(this.address, body); return send.call(this, body); };
window.fetch = async (input, init) => {
  const request = new Request(input, init);
  keep(request.url, await request.clone().text());
  return get(input, init);
};
"""
# Asked again and again: true once something was posted. Types the photos, and submits when they are typed.
POSTED = """(() => {
  const field = document.querySelector('textarea');
  if (window.posted.length || !field) return window.posted.length;
  if (field.value === '/photos') {
    [...document.querySelectorAll('button[type=submit]')].find(each => each.innerText.trim() === 'Submit')?.click();
    return false;
  }
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, '/photos');
  for (const event of ['input', 'change']) field.dispatchEvent(new Event(event, { bubbles: true }));
})()"""


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each UI's form, on a server of its own with the deployment."""
    with (
        prefect_process(tmp_path_factory.mktemp("server")) as api_url,
        temporary_settings({PREFECT_API_URL: api_url}),
    ):
        deployment = reconstruct.to_deployment(name="form").apply()
        assert isinstance(deployment, UUID)
        ui_url = api_url.removesuffix("/api")
        yield {ui: f"{ui_url}/{path}/{deployment}/run" for ui, path in PATHS.items()}


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_an_untouched_form_sends_what_was_recorded(ui: str, forms: dict[str, str], tmp_path: Path) -> None:
    with chromium(tmp_path, 1200, 3000) as page:
        page.before_load(LISTEN)
        page.open(forms[ui])
        page.wait_for("document.querySelectorAll('input[type=number]').length > 20")
        page.wait_for(POSTED)
        sent: dict[str, Any] = json.loads(page.evaluate("window.posted[0]"))
    assert sent["parameters"] == json.loads(PAYLOADS.read_text(encoding="utf-8"))[ui]

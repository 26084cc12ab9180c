"""gsplat is called with arguments that it has: every call of ours, against the installed version's own signatures."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from gsplat import rasterization
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa

from tasks.core.render import cuda
from tests.gpu import stock


def calls(path: str | None, name: str) -> list[ast.Call]:
    """Calls of a function, or of a method, of that name."""
    assert path is not None
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in found if getattr(node.func, "id", getattr(node.func, "attr", None)) == name]


def bind(function: Callable[..., object], call: ast.Call, *before: object) -> None:
    """Raises TypeError where Python would."""
    keywords = {keyword.arg: None for keyword in call.keywords}
    assert None not in keywords
    inspect.signature(function).bind(*before, *call.args, **{str(name): None for name in keywords})


@pytest.mark.parametrize("module", [cuda, stock])
def test_rasterization(module: object) -> None:
    [call] = calls(inspect.getsourcefile(module), "rasterization")
    bind(rasterization, call)
    assert {"means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds"} <= {
        keyword.arg for keyword in call.keywords
    }


def test_the_strategies() -> None:
    path = inspect.getsourcefile(stock)
    [mcmc, default, repaired] = sorted(
        (call for call in calls(path, "step_post_backward")), key=lambda call: "lr" not in ast.unparse(call)
    )
    bind(MCMCStrategy.step_post_backward, mcmc, "self")
    bind(DefaultStrategy.step_post_backward, default, "self")
    bind(DefaultStrategy.step_post_backward, repaired, "self")
    [pre] = calls(path, "step_pre_backward")
    for strategy in (MCMCStrategy, DefaultStrategy):
        bind(strategy.step_pre_backward, pre, "self")
        bind(strategy.check_sanity, calls(path, "check_sanity")[0], "self")
    [reset] = calls(path, "reset_opa")
    bind(reset_opa, reset)
    for name in ("refine_start_iter", "refine_stop_iter", "refine_every", "cap_max"):
        assert hasattr(MCMCStrategy(), name)
    for name in ("refine_start_iter", "refine_stop_iter", "refine_every", "reset_every", "prune_opa"):
        assert hasattr(DefaultStrategy(), name)

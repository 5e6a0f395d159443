"""One mechanism: the file name is the registry key."""

from __future__ import annotations

import sys

import pytest

from distill import plugins
from distill.errors import ConfigError

FOLDERS = (
    "distill.providers",
    "distill.losses",
    "distill.generate.filters",
    "distill.generate.verifiers",
    "distill.release.targets",
    "evals.tasks",
)


@pytest.mark.parametrize("package", FOLDERS)
def test_every_plugin_has_a_config_whose_kind_is_its_file_name(package):
    assert plugins.available(package)
    for name in plugins.available(package):
        module = plugins.load(package, name)
        assert issubclass(module.Config, plugins.PluginConfig)
        assert module.Config.model_fields["kind"].default == name
        assert (module.__doc__ or "").strip()


def test_a_client_module_loads_by_its_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "acme_losses.py").write_text("x = 1\n")
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").write_text("")
    (tmp_path / "acme" / "mine.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.load("distill.losses", "acme.mine").value == 3
    with pytest.raises(ConfigError):
        plugins.load("distill.losses", "acme.absent")


def test_a_broken_import_inside_a_plugin_is_not_called_unknown(tmp_path, monkeypatch):
    (tmp_path / "broken_pkg").mkdir()
    (tmp_path / "broken_pkg" / "__init__.py").write_text("")
    (tmp_path / "broken_pkg" / "mine.py").write_text("import does_not_exist_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="does_not_exist_anywhere"):
        plugins.load("distill.losses", "broken_pkg.mine")
    assert "broken_pkg.mine" not in sys.modules

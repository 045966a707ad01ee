# SPDX-License-Identifier: Apache-2.0
"""The documentation as a reader of the docsite gets it: linted, and built to HTML without a warning."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

from . import release
from .programs import CheckFailed, environment, run, variables
from .runner import Check

# Where the generated pages point to outside of the collection. The docsite has these; here is no network to ask it.
ANSIBLE_DOCS = "https://docs.ansible.com/projects/ansible/devel/"
LABELS = {
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}
BUILTIN = "ansible_collections.ansible.builtin.{name}_module"
BUILTIN_PAGE = "collections/ansible/builtin/{name}_module.html"
STRICT = (
    "--plugin-docs",
    "--validate-collection-refs=all",
    "--disallow-unknown-collection-refs",
    "--check-extra-docs-refs",
)
THEME = "alabaster"  # comes with Sphinx; the look is the docsite's business


def _run(folder: Path) -> str:
    root = release.export(folder)
    programs = environment("conventions")
    env = variables(folder, programs, ANSIBLE_COLLECTIONS_PATH=str(folder))
    run([programs / "antsibull-docs", "lint-collection-docs", *STRICT, root], env=env)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    _write_inventory(site / "ansible.inv", programs)
    options = ["--use-current", "--squash-hierarchy", "--fail-on-error", "--sphinx-theme", THEME]
    run([programs / "antsibull-docs", "sphinx-init", *options, "--dest-dir", site, "podnet.ipam"], env=env)
    with (site / "conf.py").open("a") as settings:
        settings.write(f"\nintersphinx_mapping = {{'ansible': ({ANSIBLE_DOCS!r}, '../ansible.inv')}}\n")
    try:
        run([site / "build.sh"], env=env)
    except CheckFailed as error:
        findings = [line for line in str(error).splitlines() if "WARNING: " in line or "ERROR: " in line]
        raise CheckFailed("\n".join(findings) or str(error)) from None
    pages = list((site / "build/html").rglob("*.html"))
    return f"{len(pages)} pages without a warning"


def _write_inventory(path: Path, programs: Path) -> None:
    """A Sphinx inventory (version 2) of the pages of Ansible's documentation that ours may point to."""
    code = "import ansible.modules as m, pkgutil; print(*(each.name for each in pkgutil.iter_modules(m.__path__)))"
    modules = run([programs / "python", "-c", code]).split()
    targets = {**LABELS, **{BUILTIN.format(name=name): BUILTIN_PAGE.format(name=name) for name in modules}}
    lines = "".join(f"{label} std:label -1 {page}#{label} {label}\n" for label, page in sorted(targets.items()))
    head = "# Sphinx inventory version 2\n# Project: Ansible\n# Version: devel\n# The rest is compressed with zlib.\n"
    path.write_bytes(head.encode() + zlib.compress(lines.encode()))


CHECK = Check("documentation", _run)

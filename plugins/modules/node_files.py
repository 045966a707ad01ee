#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_files
short_description: Write several small files of a node at once
description:
  - Brings folders and text files of the machine that it runs on to the given modes and contents.
  - It does what M(ansible.builtin.template) does for one file, for all of them in one call, so that a node of which
    nothing has to be changed is asked once and not several times for each file.
  - A file is written beside its place and renamed, so that whoever reads it sees the former content or the new one.
author: The podnet.ipam contributors (@podnet)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the node.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), when in diff mode.
    support: full
options:
  folders:
    description: Folders to have, in this order; those above them have to exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder.
        type: path
        required: true
      mode:
        description: Its mode, octal, in quotes.
        type: str
        default: '0755'
  files:
    description: Files to have, written in this order after the folders.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file. A link is replaced by a file.
        type: path
        required: true
      content:
        description: Its text. Anything but a text is written as JSON.
        type: raw
        required: true
      mode:
        description: Its mode, octal, in quotes.
        type: str
        default: '0644'
"""

EXAMPLES = r"""
- name: Configure the agent
  podnet.ipam.node_files:
    folders:
      - path: /etc/podnet-ipam
        mode: '0700'
    files:
      - path: /etc/podnet-ipam/agent.toml
        content: "{{ lookup('ansible.builtin.template', 'agent.toml.j2') }}"
      - path: /etc/systemd/system/podnet-ipam.service
        content: "{{ lookup('ansible.builtin.template', 'podnet-ipam.service.j2') }}"
  notify: Restart the agent
"""

RETURN = r"""
paths:
  description: The folders and files that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/podnet-ipam/agent.toml]
"""

import json
import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "folders": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "raw", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
    },
}


def octal(entry):
    """The mode of a folder or file as a number. ValueError names what is wrong with it."""
    try:
        return int(entry["mode"], 8)
    except ValueError:
        where = f"mode {entry['mode']!r} of {entry['path']}"
        raise ValueError(f"{where}: an octal number such as '0644' is expected") from None


def text_of(content):
    """What is to stand in the file. Ansible turns a text that looks like JSON into what it says."""
    return content if isinstance(content, str) else json.dumps(content, indent=4, sort_keys=True) + "\n"


def found(path):
    """The mode and the text of what is there; None for either that it has not. A link is nothing that may stay."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None, None
    if not stat.S_ISREG(status.st_mode):
        return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None, None
    with open(path, "rb") as file:
        return stat.S_IMODE(status.st_mode), file.read().decode(errors="replace")


def have_folder(entry, check_mode):
    """Bring a folder about. Return its difference, None where there is none."""
    path, mode = entry["path"], octal(entry)
    before, _text = found(path)
    if before == mode:
        return None
    if not check_mode:
        if before is None:
            os.mkdir(path)
        os.chmod(path, mode)
    return difference(path, (before, None), (mode, None))


def have_file(entry, check_mode):
    """Bring a file about, as `have_folder`."""
    path, after = entry["path"], (octal(entry), text_of(entry["content"]))
    before = found(path)
    if before == after:
        return None
    if not check_mode:
        write(path, *after)
    return difference(path, before, after)


def write(path, mode, text):
    """Write beside its place, in the same folder, and rename: some readers do not notice what comes from elsewhere."""
    handle, aside = tempfile.mkstemp(prefix=".", suffix=".new", dir=os.path.dirname(path))
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        os.chmod(aside, mode)
        os.rename(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def difference(path, before, after):
    """Modes and texts of a path, as Ansible shows them."""
    return {
        "before_header": path,
        "after_header": path,
        "before": described(*before),
        "after": described(*after),
    }


def described(mode, text):
    return ("" if mode is None else f"mode: {mode:04o}\n") + (text or "")


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted = [*module.params["folders"], *module.params["files"]]
    done, path = [], None
    try:
        for entry in wanted:
            octal(entry)
        for entry in wanted:
            path = entry["path"]
            have = have_file if "content" in entry else have_folder
            done.append(have(entry, module.check_mode))
    except (OSError, ValueError) as error:
        prefix = f"{path}: " if isinstance(error, OSError) else ""
        module.fail_json(msg=f"{prefix}{error}", paths=[each["after_header"] for each in done if each])
    changed = [each for each in done if each]
    module.exit_json(changed=bool(changed), paths=[each["after_header"] for each in changed], diff=changed)


if __name__ == "__main__":
    main()

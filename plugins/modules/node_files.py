#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_files
short_description: Bring several files of a node about at once
description:
  - Brings folders, files and links of the machine that it runs on to the given modes, contents and targets.
  - It does what M(ansible.builtin.template), M(ansible.builtin.copy) and M(ansible.builtin.file) do for one of them,
    for all in one call, so that a node of which nothing has to be changed is asked once and not several times for each.
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
    description: Folders to have, in this order, and those above them.
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
  copies:
    description:
      - Files to be as others of the node are, made in this order after the folders. They get mode and content, a link
        its target; where the other one is not there, they are removed.
      - Folders above them are made where they are missing.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      source:
        description: The other one.
        type: path
        required: true
  files:
    description: Files to have, written in this order after the copies.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file. A link is replaced by a file.
        type: path
        required: true
      content:
        description: Its text. Anything but a text is written as JSON. Either this or O(files[].source) is given.
        type: raw
      source:
        description: A file of the node that it is to be a copy of.
        type: path
      mode:
        description: Its mode, octal, in quotes.
        type: str
        default: '0644'
  links:
    description: Symbolic links to have, made in this order after the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The link. A file in its place is replaced, a folder is not.
        type: path
        required: true
      target:
        description: What it points to, which need not exist.
        type: str
        required: true
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
  description: The files, folders and links that were changed, or would be in check mode.
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


def entries(**options):
    """The specification of an option that lists things with these options of their own."""
    return {"type": "list", "elements": "dict", "default": [], "options": options}


PATH = {"type": "path", "required": True}
OPTIONS = {
    "folders": entries(path=PATH, mode={"type": "str", "default": "0755"}),
    "copies": entries(path=PATH, source=PATH),
    "files": {
        **entries(
            path=PATH,
            content={"type": "raw"},
            source={"type": "path"},
            mode={"type": "str", "default": "0644"},
        ),
        "required_one_of": [("content", "source")],
        "mutually_exclusive": [("content", "source")],
    },
    "links": entries(path=PATH, target={"type": "str", "required": True}),
}


def octal(entry):
    """The mode of a folder or file as a number. ValueError names what is wrong with it."""
    try:
        return int(entry["mode"], 8)
    except ValueError:
        where = f"mode {entry['mode']!r} of {entry['path']}"
        raise ValueError(f"{where}: an octal number such as '0644' is expected") from None


def found(path):
    """The mode and the bytes of a file that is there, the mode of a folder; None for each that it has not."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None, None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return stat.S_IMODE(status.st_mode), file.read()
    return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None, None


def content_of(entry):
    """The bytes that are to stand in a file. FileNotFoundError where what it is to be a copy of is not there."""
    content = entry["content"]
    if entry["source"]:
        with open(entry["source"], "rb") as file:
            return file.read()
    # Ansible turns a text that looks like JSON into what it says.
    text = content if isinstance(content, str) else json.dumps(content, indent=4, sort_keys=True) + "\n"
    return text.encode()


def have_folder(entry, check_mode):
    """Bring a folder about. Return its difference, None where there is none."""
    path, mode = entry["path"], octal(entry)
    before, _content = found(path)
    if before == mode:
        return None
    if not check_mode:
        if before is None:
            os.makedirs(path)
        os.chmod(path, mode)
    return difference(path, described(before), described(mode))


def have_file(entry, check_mode):
    """Bring a file about. Return as `have_folder`."""
    path, mode = entry["path"], octal(entry)
    try:
        content = content_of(entry)
    except FileNotFoundError:
        if not check_mode:
            raise
        content = None  # something earlier in the play, which a dry run does not do, would have brought it
    return have_content(path, mode, content, check_mode)


def have_content(path, mode, content, check_mode):
    """Bring a file with this mode, a number, and these bytes about. Return as `have_folder`."""
    before = found(path)
    if before == (mode, content):
        return None
    if not check_mode:
        write(path, mode, content)
    return difference(path, described(*before), described(mode, content))


def have_copy(entry, check_mode):
    """Bring a file about that is as another one, or gone as that is. Return as `have_folder`."""
    path, source = entry["path"], entry["source"]
    if not os.path.lexists(source):
        return have_nothing(entry, check_mode)
    if not check_mode:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(source):
        return have_link({"path": path, "target": os.readlink(source)}, check_mode)
    with open(source, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        return have_content(path, mode, file.read(), check_mode)


def have_nothing(entry, check_mode):
    """Bring about that there is no such file or link. Return as `have_folder`."""
    path = entry["path"]
    if not os.path.lexists(path):
        return None
    before = shown(path)
    if not check_mode:
        os.unlink(path)
    return difference(path, before, "")


def have_link(entry, check_mode):
    """Bring a link about. Return as `have_folder`."""
    path, target = entry["path"], entry["target"]
    if os.path.islink(path) and os.readlink(path) == target:
        return None
    before = shown(path)
    if not check_mode:
        link(path, target)
    return difference(path, before, f"-> {target}\n")


def write(path, mode, content):
    """Write beside its place, in the same folder, and rename: some readers do not notice what comes from elsewhere."""
    handle, aside = tempfile.mkstemp(prefix=".", suffix=".new", dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.chmod(aside, mode)
        os.rename(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def link(path, target):
    """Make the link beside its place and rename it."""
    aside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.new")
    os.symlink(target, aside)
    try:
        os.rename(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def difference(path, before, after):
    """What Ansible shows of a path."""
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def shown(path):
    """What Ansible shows of what is there now."""
    return f"-> {os.readlink(path)}\n" if os.path.islink(path) else described(*found(path))


def described(mode, content=None):
    """Mode and text of a file or folder; what is no text is counted."""
    lines = "" if mode is None else f"mode: {mode:04o}\n"
    try:
        return lines + (content or b"").decode()
    except UnicodeDecodeError:
        return f"{lines}{len(content)} bytes\n"


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    parts = {"folders": have_folder, "copies": have_copy, "files": have_file, "links": have_link}
    done, path = [], None
    try:
        for entry in params["folders"] + params["files"]:
            octal(entry)
        for have, entry in [(have, entry) for part, have in parts.items() for entry in params[part]]:
            path = entry["path"]
            done.append(have(entry, module.check_mode))
    except (OSError, ValueError) as error:
        prefix = f"{path}: " if isinstance(error, OSError) else ""
        module.fail_json(msg=f"{prefix}{error}", paths=[each["after_header"] for each in done if each])
    changed = [each for each in done if each]
    module.exit_json(changed=bool(changed), paths=[each["after_header"] for each in changed], diff=changed)


if __name__ == "__main__":
    main()

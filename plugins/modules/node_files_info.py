#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_files_info
short_description: Tell which files a node has
description:
  - Looks for several files of the machine that it runs on, by path or pattern, in one call.
  - It tells what M(ansible.builtin.stat) and M(ansible.builtin.find) tell for one of them.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes.node_info
options:
  patterns:
    description:
      - Paths, in which C(*), C(?) and C([]) stand for parts of a name as they do for a shell.
      - A name that begins with a dot is found by a pattern that has the dot.
    type: list
    elements: path
    required: true
  contents:
    description: Files to read as well, which hold text. Those that are not there are left out.
    type: list
    elements: path
    default: []
seealso:
  - module: podnet.ipam.node_files
"""

EXAMPLES = r"""
- name: Look at what the node has
  podnet.ipam.node_files_info:
    patterns:
      - /opt/podnet-ipam/current
      - /etc/cni/net.d/*.conflist
    contents:
      - /proc/sys/net/ipv4/ip_forward
  register: present

- name: Say which version is in use
  ansible.builtin.debug:
    msg: "{{ present.files['/opt/podnet-ipam/current'].target }}"
  when: "'/opt/podnet-ipam/current' in present.files"
"""

RETURN = r"""
files:
  description: What there is of O(patterns), by path.
  returned: success
  type: dict
  contains:
    type:
      description: One of V(file), V(directory), V(link), V(other).
      type: str
      returned: always
    target:
      description: What a link points to, whether that exists or not.
      type: str
      returned: when it is a link
    modified:
      description: When it was modified last, in seconds since 1970.
      type: float
      returned: always
  sample:
    /opt/podnet-ipam/current:
      type: link
      target: 93ba07c1d2f4e561
      modified: 1764388800.25
contents:
  description: The texts of O(contents), by path.
  returned: success
  type: dict
  sample:
    /proc/sys/net/ipv4/ip_forward: "1\n"
"""

import glob
import os
import re
import stat

from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "patterns": {"type": "list", "elements": "path", "required": True},
    "contents": {"type": "list", "elements": "path", "default": []},
}


def found(pattern):
    """What there is of a pattern; each path begins as the pattern does, slashes too many included."""
    folder = re.match(r"[^*?\[]*", pattern).group().rpartition("/")[0]
    return [folder + path[len(folder.rstrip("/")) :] for path in sorted(glob.glob(pattern))]


def described(path):
    """What is known of a path; None where there is nothing any more."""
    try:
        status = os.lstat(path)
        known = {"type": kind(status.st_mode), "modified": status.st_mtime}
        return {**known, "target": os.readlink(path)} if known["type"] == "link" else known
    except FileNotFoundError:
        return None


def kind(mode):
    """The word for a file's type."""
    tests = {"file": stat.S_ISREG, "directory": stat.S_ISDIR, "link": stat.S_ISLNK}
    return next((name for name, test in tests.items() if test(mode)), "other")


def text_of(path):
    """A file's text; None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    paths = [path for pattern in module.params["patterns"] for path in found(pattern)]
    path = None
    try:
        files = {path: described(path) for path in paths}
        texts = {}
        for path in module.params["contents"]:
            texts[path] = text_of(path)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{path}: {error}")
    module.exit_json(
        changed=False,
        files={path: known for path, known in files.items() if known is not None},
        contents={path: text for path, text in texts.items() if text is not None},
    )


if __name__ == "__main__":
    main()

# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A picture of pools and their blocks, as SVG.

A pool is a field of cells, one for each block that it has room for, in the order of addresses. A cell is filled from
below by the share of the block's addresses that are in use, in the colour of its node. Of a pool with room for more
than FIELD blocks only those that exist are shown, one after the other: of an IPv6 range one would see nothing else.
"""

from __future__ import annotations

import colorsys
import ipaddress
from collections import defaultdict
from xml.sax.saxutils import escape

FIELD = 4096  # blocks
COLUMNS, LEGEND_COLUMNS = 64, 4
CELL, LINE, MARGIN = 12, 20, 12  # pixels
INNER = COLUMNS * CELL
INK, PAPER, UNCLAIMED, NOBODY = "#222222", "#ffffff", "#eeeeee", "#888888"
GOLDEN_ANGLE = 137.508 / 360  # of a turn: hues that follow each other by it stay apart, however many there are


def draw(pools, blocks, within=()):
    """The SVG's text. `pools` and `blocks` are those of ipam_info; of `within`, networks, it shows where pools lie."""
    page = _Page(_colours(blocks))
    for network in within:
        page.range(network, pools)
    of_pool = defaultdict(list)
    for block in sorted(blocks, key=_place):
        of_pool[block["pool"]].append(block)
    for pool in sorted(pools, key=_place):
        page.pool(pool, of_pool.pop(pool["name"], []))
    for strays in of_pool.values():
        page.heading("in no pool", _count(strays))
        page.field(enumerate(strays), len(strays))
    page.legend()
    return page.finished()


def _place(entry):
    network = ipaddress.ip_network(entry["cidr"])
    return network.version, network.network_address, network.prefixlen


def _count(blocks):
    return f"{len(blocks):,} block{'' if len(blocks) == 1 else 's'}"


def _colours(blocks):
    nodes = sorted({block["node"] for block in blocks if block["node"]})
    return {node: _colour(number * GOLDEN_ANGLE % 1) for number, node in enumerate(nodes)}


def _colour(hue):
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.45, 0.6))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _cells(network, block_size, blocks):
    """[(cell, block)] by where a block lies in its pool, and the number of cells; None where that cannot be shown."""
    count = 1 << max(block_size - network.prefixlen, 0)
    inner = [ipaddress.ip_network(block["cidr"]) for block in blocks]
    if count > FIELD or any(each.prefixlen != block_size for each in inner):
        return None
    size, first = network.num_addresses // count, int(network.network_address)
    return [((int(each.network_address) - first) // size, block) for each, block in zip(inner, blocks)], count


class _Page:
    """What is drawn so far, and how far down it reaches."""

    def __init__(self, colours):
        self._colours = colours
        self._drawn = []
        self._bottom = MARGIN

    def range(self, network, pools):
        """A bar for a network, with its pools in their places."""
        self.heading(str(network), f"{network.num_addresses:,} addresses")
        self._rectangle(MARGIN, self._bottom, INNER, LINE, UNCLAIMED)
        scale = INNER / network.num_addresses
        for pool in pools:
            inner = ipaddress.ip_network(pool["cidr"])
            if inner.version == network.version and inner.subnet_of(network):
                start = (int(inner.network_address) - int(network.network_address)) * scale
                width = max(inner.num_addresses * scale - 1, 1)  # a pixel between neighbours
                self._rectangle(MARGIN + start, self._bottom, width, LINE, NOBODY, f"{pool['name']}: {pool['cidr']}")
        self._bottom += LINE + MARGIN

    def pool(self, pool, blocks):
        cells = _cells(ipaddress.ip_network(pool["cidr"]), pool["block_size"], blocks)
        said = [
            pool["cidr"] + (", disabled" if pool["disabled"] else ""),
            f"{pool['used']:,} of {pool['size']:,} addresses in use",
            _count(blocks) + ("" if cells else ", shown one after the other"),
        ]
        self.heading(pool["name"], "; ".join(said))
        self.field(*cells or (enumerate(blocks), len(blocks)))

    def heading(self, name, said):
        self._bottom += LINE
        self._text(MARGIN, self._bottom - 6, f'<tspan font-weight="bold">{escape(name)}</tspan> {escape(said)}')

    def field(self, cells, count):
        """So many cells, of which `cells`, pairs of the cell's number and its block, are filled."""
        rows = -(-count // COLUMNS)
        self._rectangle(MARGIN, self._bottom, min(count, COLUMNS) * CELL, rows * CELL, UNCLAIMED)
        for number, block in cells:
            row, column = divmod(number, COLUMNS)
            self._block(MARGIN + column * CELL, self._bottom + row * CELL, block)
        self._bottom += rows * CELL + MARGIN

    def legend(self):
        """The nodes' colours."""
        for number, (node, colour) in enumerate(self._colours.items()):
            row, column = divmod(number, LEGEND_COLUMNS)
            x, y = MARGIN + column * INNER / LEGEND_COLUMNS, self._bottom + row * LINE
            self._rectangle(x, y, CELL, CELL, colour)
            self._text(x + CELL + 6, y + CELL - 2, escape(node))
        self._bottom += -(-len(self._colours) // LEGEND_COLUMNS) * LINE

    def finished(self):
        width, height = INNER + 2 * MARGIN, self._bottom + MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="12" fill="{INK}">'
        )
        return "\n".join([head, f'<rect width="{width}" height="{height}" fill="{PAPER}"/>', *self._drawn, "</svg>\n"])

    def _block(self, x, y, block):
        """A frame of one pixel, and in it the share in use; what the mouse is told says both in figures."""
        colour = self._colours.get(block["node"], NOBODY)
        side = CELL - 3  # inside of the frame, with a pixel between neighbours
        filled = max(side * block["used"] / block["size"], 1 if block["used"] else 0)  # one address is to be seen, too
        borrowed = f", {block['borrowed']} by other nodes" if block["borrowed"] else ""
        told = f"{block['cidr']}: {block['node'] or 'no node'}, {block['used']} of {block['size']} in use{borrowed}"
        self._drawn.append(
            f'<g><title>{escape(told)}</title><rect x="{x + 0.5}" y="{y + 0.5}" width="{side + 1}" height="{side + 1}" '
            f'fill="{PAPER}" stroke="{colour}"/><rect x="{x + 1}" y="{y + 1 + side - filled:g}" width="{side}" '
            f'height="{filled:g}" fill="{colour}"/></g>'
        )

    def _rectangle(self, x, y, width, height, colour, told=None):
        inner = f"<title>{escape(told)}</title>" if told else ""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._drawn.append(f'<rect {place} fill="{colour}">{inner}</rect>')

    def _text(self, x, y, content):
        self._drawn.append(f'<text x="{x:g}" y="{y:g}">{content}</text>')

# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0

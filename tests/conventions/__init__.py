# SPDX-License-Identifier: Apache-2.0
"""What the collection's users and its distributors check, run here: ansible-test, galaxy-importer, antsibull, REUSE."""

"""Attackers who know the shield: everything but the seed of a check.

`views.py` differentiates the versions, `gate.py` rebuilds the check, the other files hold one attack each.
"""

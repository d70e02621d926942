"""The red team: attacks on a target, one a file, named as in its paper."""

"""How many versions of a volume a check compares; free of imports, so that every face can start with it."""

# The fewest, and what --quick means: one in place, and one from another place if the family has any.
QUICK = 2
# As many as the families of `families.choose` have.
ALL = 6

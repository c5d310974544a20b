"""The house rules as code: source.py reads the tree, the other rooms each hold rules about one thing, told by test_house.py."""

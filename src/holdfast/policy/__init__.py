"""The decisions: pure functions and small classes. `now` is an argument; every verdict carries a sentence."""

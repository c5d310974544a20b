"""The nouns: frozen structs and tables, known to every floor. No I/O, no clock, standard library and msgspec only."""

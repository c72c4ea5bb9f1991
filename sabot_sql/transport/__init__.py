"""How committed outputs are read, wherever they lie: one interface over pointers, shared memory and Arrow Flight."""

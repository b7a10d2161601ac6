//! A machine to play on: the simulator, with a back that serves from memory.

"""Settings from files and the environment: where they are read, what is in force, and completion for shells."""

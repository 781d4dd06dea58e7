"""The flight recorder: a core's inputs of the last minutes, and how they are run again."""
